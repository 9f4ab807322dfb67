"""A headless Chromium with nothing between it and the page: real clicks, real drops, real video."""

import base64
import shutil
import tempfile
from pathlib import Path

import pytest

SIZE = (1560, 1010)

DROP = """
const [selector, name, data] = arguments;
const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)), files = new DataTransfer();
files.items.add(new File([bytes], name));
for (const kind of ["dragenter", "dragover", "drop"])
  document.querySelector(selector).dispatchEvent(
    new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
"""


class Page:
    def __init__(self):
        webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not chromium or not driver:
            pytest.skip("chromium and chromium-driver are not installed (Debian: apt-get install chromium-driver)")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        for argument in (
            "--headless=new",
            "--no-sandbox",  # a container's root has no sandbox
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            f"--user-data-dir={self._profile}",
            f"--window-size={SIZE[0]},{SIZE[1]}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        self.driver.set_window_size(*SIZE)

    def open(self, url):
        self.driver.get(url)

    def find(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector):
        self.find(selector).click()

    def text(self, selector):
        return self.find(selector).text

    def wait(self, script, patience_s=60):
        """Until the JavaScript expression is true; its value."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            return WebDriverWait(self.driver, patience_s, 0.1).until(
                lambda driver: driver.execute_script(f"return {script}")
            )
        except TimeoutException as error:
            self.shoot(Path(tempfile.gettempdir()) / "reafference-page.png")
            shown = self.driver.execute_script("return document.body.innerText")
            raise AssertionError(f"never came true: {script}\n{shown}\n{self.errors()}") from error

    def drop(self, selector, name, data):
        self.driver.execute_script(DROP, selector, name, base64.b64encode(data).decode())

    def shoot(self, path):
        self.driver.save_screenshot(str(path))

    def errors(self):
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def close(self):
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)
