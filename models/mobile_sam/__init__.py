"""MobileSAM in image mode: a picture and prompts in, mask logits and their estimated quality out.

In: RGB pictures and prompts as tensors. Out: tensors. Called by actors/segmenter.py through
`load_mobile_sam`. Knows nothing of Ray, of messages or of where weights come from.

Reading order: geometry (picture ↔ the model's square), encoder (the architecture), lean (the same sums,
fast on a CPU), network (encoder + SAM's prompt encoder and mask decoder), names (checkpoint → modules,
strictly).
"""
