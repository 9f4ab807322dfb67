# One image for machines with and without a GPU: the pinned torch brings its CUDA libraries and works without a card too.
#
#   docker build -t reafference .
#   docker run --rm --network host --shm-size 4g -v reafference-weights:/cache reafference
#   docker run --rm --network host --shm-size 4g -v reafference-weights:/cache --gpus all reafference configs/serve_gpu.yaml
#
# With --network host the service stays on the host's loopback, as without a container. On a bridge the container's own
# loopback is of no use: mount a config with `host: 0.0.0.0` and set REAFFERENCE_TOKEN (docs/serve.md, Security).

FROM python:3.12-slim-bookworm

# libegl1, libegl-mesa0, libgl1-mesa-dri: the simulated arm's camera renders without a display. make: for the targets.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 reafference \
    && install -d -o reafference -g reafference /app /cache /out

WORKDIR /app
USER 1000
ENV REAFFERENCE_WEIGHTS=/cache \
    PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 \
    RAY_worker_niceness=0

# The environment changes seldom, the code often.
COPY --chown=reafference:reafference requirements.lock ./
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --target .venv/bootstrap uv==0.13.* \
    && .venv/bootstrap/bin/uv pip sync --no-cache --python .venv/bin/python requirements.lock

COPY --chown=reafference:reafference . .
RUN touch .venv/installed

VOLUME ["/cache", "/out"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["sh", "-c", "python -m models.weights fetch && exec serve run \"$0\""]
CMD ["configs/serve_cpu.yaml"]
