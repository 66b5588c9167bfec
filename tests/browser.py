"""JupyterLab in a headless Chromium, for the tests of the notebooks: a server, its pages, and what is seen there."""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # root in a container can have none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the pages must do without a network
)
SETTINGS = {  # no pop-up and no request to the outside
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/extensionmanager-extension:plugin": {"enabled": False},
}
FOLDERS = {  # nothing of the user's own settings, kernels, signatures and data
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
    "XDG_CACHE_HOME": "cache",
    "REFUSALS": "refusals.txt",
}
# The short form of the notebooks without data, and pictures whatever the caller's shell says of matplotlib.
UNSET = ("CLNN_DATA", "CLNN_FULL", "CLNN_PHOTO", "MPLBACKEND", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "JUPYTER_TOKEN")
REFUSE = """
import os, socket

def refused(*args, **kwargs):
    with open(os.environ["REFUSALS"], "a") as file:
        file.write("asked for the network\\n")
    raise OSError("the test refuses the network")

socket.create_connection = socket.getaddrinfo = refused
socket.socket.connect = socket.socket.connect_ex = refused
"""

WIDGET = "application/vnd.jupyter.widget-view+json"
RUN_MS = 400_000  # for all cells of a notebook
# What a reader sees of each code cell. A widget that cannot be drawn leaves a line of text instead of a view.
CELLS = """() => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].map(cell => {
    const find = selector => [...cell.querySelectorAll('.jp-OutputArea-output' + selector)];
    return {
        prompt: cell.querySelector('.jp-InputPrompt').textContent,
        text: find('').map(output => output.textContent).join('\\n'),
        images: find(' img').filter(image => image.naturalWidth > 0).length,
        views: find(' > .jupyter-widgets').length + find('.lm-mod-hidden').length,  // hidden: closed by its program
        bars: find(' .widget-hprogress').length,
        pictures: find(' .widget-image').filter(image => image.naturalWidth > 0).length,
        controls: find(' .widget-slider').length + find(' .widget-dropdown').length + find(' .clnn-sketchpad').length,
        answers: find(' details').length,
    };
})"""
# A formula that MathJax cannot read stays as it was typed, or becomes red or an error.
FORMULAS = r"""() => [...document.querySelectorAll('.jp-Notebook .jp-MarkdownOutput')].flatMap(cell => {
    const copy = cell.cloneNode(true);
    const red = [...copy.querySelectorAll('merror, mtext[mathcolor=red]')].map(e => e.textContent);
    copy.querySelectorAll('code, pre, mjx-container').forEach(e => e.remove());
    return red.concat(copy.textContent.match(/\\[a-zA-Z]+.*/g) || []);
})"""
DIGEST = """async image => {
    const bytes = await (await fetch(image.src)).arrayBuffer();
    return [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].join();
}"""


def chromium() -> str | None:
    """The browser's program: what CLNN_CHROMIUM names, else what the system has."""
    named = os.environ.get("CLNN_CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)


def is_there() -> bool:
    """Whether notebooks can be opened in a browser here."""
    return chromium() is not None and importlib.util.find_spec("playwright") is not None


class Lab:
    """A JupyterLab of this Python on a copy of ``course``, all its own files in ``folder``.

    Its kernels find no data and no network; ``refusals`` is the file that notes when one asks for it.
    """

    def __init__(self, course: Path, folder: Path):
        self.root, self.log, self.refusals = folder / "course", folder / "log.txt", folder / FOLDERS["REFUSALS"]
        shutil.copytree(course, self.root, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        settings = folder / "config" / "labconfig" / "default_setting_overrides.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(SETTINGS), encoding="utf-8")
        startup = folder / FOLDERS["IPYTHONDIR"] / "profile_default" / "startup" / "refuse.py"
        startup.parent.mkdir(parents=True)
        startup.write_text(REFUSE, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
        environment = {key: value for key, value in os.environ.items() if key not in UNSET}
        compiled = Path(environment.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pocl" / "kcache"
        environment.setdefault("POCL_CACHE_DIR", str(compiled))  # compiled kernels are no data
        environment |= {key: str(folder / name) for key, name in FOLDERS.items()}
        # Its kernels listen at files, whose paths must be short: a port might be taken between their end and restart.
        self.runtime = tempfile.TemporaryDirectory(prefix="clnn")
        environment["JUPYTER_RUNTIME_DIR"] = self.runtime.name
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--KernelManager.transport=ipc"]
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
        command += [f"--ServerApp.root_dir={self.root}", f"--IdentityProvider.token={self.token}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def ask(self, path: str, method: str = "GET"):
        """What the server's programming interface answers."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError with its log where it does not."""
        end = time.monotonic() + 60
        while True:
            try:
                self.ask("status")
                return
            except OSError:  # nobody listens yet
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"JupyterLab does not start:\n{self.log.read_text()}") from None
                time.sleep(0.1)

    def stop_kernels(self) -> None:
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.stop_kernels()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.runtime.cleanup()


class Visit:
    """A reader's visit to one notebook: opened, run, saved, each step taken on the page as a reader takes it.

    ``stored`` and ``saved`` are the notebook's file before and after, ``opened`` and ``ran`` what each code cell shows,
    ``formulas`` those that are not set. ``patience`` is how many seconds a picture may take. The page is photographed
    into ``pictures``, where that is a folder.
    """

    patience = 20

    def __init__(self, page, lab: Lab, name: str, pictures: Path | None):
        self.page, self.lab, self.file, self.pictures = page, lab, lab.root / name, pictures
        page.set_default_timeout(180_000)
        page.goto(f"{lab.url}/lab/tree/{name}?reset&token={lab.token}")
        self.stored = nbformat.read(self.file, as_version=4)
        self._wait(  # they appear one after the other
            f"""() => document.querySelectorAll('.jp-Notebook .jp-Cell').length === {len(self.stored.cells)}
                && !document.querySelector('.jp-Notebook .jp-Placeholder-content')"""
        )
        self._wait_idle()
        self._wait("() => [...document.querySelectorAll('.jp-Notebook img')].every(i => i.complete)")
        self.opened = page.evaluate(CELLS)

    def _wait(self, condition: str, **options) -> None:
        """Until a condition holds, asked for now and then: at every frame, as by default, it costs a core."""
        self.page.wait_for_function(condition, polling=100, **options)

    def _wait_idle(self) -> None:
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")

    def _choose(self, menu: str, entry: str) -> None:
        self.page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
        self.page.click(f".lm-Menu-itemLabel:text-matches('^{entry}')")

    def run_all(self) -> None:
        """Run all cells with the kernel that the page has started, until none waits or runs; save."""
        self._choose("Run", "Run All Cells$")  # without a restart, in which the page may lose what it is to run
        waiting = "[...document.querySelectorAll('.jp-InputPrompt')].some(e => e.textContent.includes('*'))"
        self._wait(f"() => {waiting}")
        self._wait(f"() => !{waiting}", timeout=RUN_MS)
        self._wait_idle()
        self._wait("() => !document.body.textContent.includes('Loading widget...')")
        self.ran, self.formulas = self.page.evaluate(CELLS), self.page.evaluate(FORMULAS)
        self._choose("File", "Save Notebook$")  # so that the file tells what the kernel sent
        self.page.wait_for_selector(".jp-mod-current.jp-mod-dirty", state="detached")
        self.saved = nbformat.read(self.file, as_version=4)
        if self.pictures:
            self.photograph()

    def photograph(self) -> None:
        """The page from top to bottom, as pictures."""
        small = self.page.viewport_size
        self.page.set_viewport_size({"width": small["width"], "height": 2400})
        roll = """e => {
            const bottom = element => element.getBoundingClientRect().bottom;
            const more = bottom([...e.querySelectorAll('.jp-Cell')].at(-1)) > bottom(e);
            e.scrollTop += e.clientHeight - 40;
            return more;
        }"""
        scroller = self.page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer")
        scroller.evaluate("e => { e.scrollTop = 0; }")
        for number in range(1, 100):
            self.page.wait_for_timeout(100)  # what comes into view is drawn now
            scroller.screenshot(path=self.pictures / f"{self.file.stem}-{number:02}.png")
            if not scroller.evaluate(roll):
                break
        self.page.set_viewport_size(small)

    def still_pictures(self) -> list[str]:
        """The cells whose picture no slider, menu or pad changes, or where a value leaves no picture."""
        ids, faults = [cell.id for cell in self.saved.cells if cell.cell_type == "code"], []
        place = "e => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].indexOf(e.closest('.jp-CodeCell'))"
        for explorer in self.page.locator(".jp-OutputArea-output > .jupyter-widgets:has(.widget-image)").all():
            name = ids[explorer.evaluate(place)]
            controls = explorer.locator("[role=slider], select, .clnn-sketchpad").all()
            if not any(self._changes(explorer, control) for control in controls):
                faults.append(f"{name}: the picture stays as it is, whichever slider moves")
            if note := explorer.locator(".widget-html-content").inner_text():
                faults.append(f"{name}: {note}")
        return faults

    def _draw_on(self, pad) -> None:
        """A stroke from corner to corner, as a hand with a mouse does it."""
        pad.hover(position={"x": 20, "y": 20})  # which waits until nothing lies above that place
        self.page.mouse.down()
        pad.hover(position={"x": 180, "y": 180})
        self.page.mouse.up()

    def _changes(self, explorer, control) -> bool:
        image = explorer.locator(".widget-image")
        former = image.evaluate(DIGEST)
        kind = control.evaluate("e => e.tagName")
        if kind == "SELECT":
            chosen = control.evaluate("e => e.selectedIndex")
            control.select_option(index=0 if chosen else 1)
        elif kind == "CANVAS":
            self._draw_on(control)
        else:
            at_end = control.evaluate("e => e.ariaValueNow === e.ariaValueMax")
            control.press("Home" if at_end else "End")
        for _ in range(10 * self.patience):
            self.page.wait_for_timeout(100)
            if image.evaluate(DIGEST) != former:
                return True
            if explorer.locator(".widget-html-content").inner_text():  # says why there is no new picture
                break
        return False
