"""Open every built page in a headless browser, on a desk and on a phone, and say what is wrong.

``make docs && make browser`` (needs Chromium, named by ``CHROMIUM`` if it is not on the path). A
page must load what it names, not scroll sideways, raise no error, and link to what is there. On a
desk, code must fit its column. Search must find, and code must be copied without prompts.
``--pictures FOLDER`` keeps a picture of each page for a look with one's own eyes; ``--mathjax
FOLDER`` takes MathJax from npm packages there instead of from the network.
"""

import argparse
import os
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from playwright.sync_api import sync_playwright
from tqdm import tqdm

WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
SEARCHED = {"wald_test": "wald_test", "size factor": "offsets", "separated": "troubleshooting"}
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]

FACTS = """() => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    culprits: [...document.querySelectorAll('main *')].filter(e => {
        const box = e.getBoundingClientRect();
        if (box.right <= document.documentElement.clientWidth + 1 || !box.width) return false;
        for (let p = e.parentElement; p; p = p.parentElement)
            if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return false;
        return true;
    }).slice(0, 3).map(e => e.tagName + '.' + e.className),
    broken: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    unnamed: [...document.images].filter(i => !i.hasAttribute('alt')).map(i => i.src),
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    anchors: [...document.querySelectorAll('[id]')].map(e => e.id),
    cut: [...document.querySelectorAll('div.highlight pre')].filter(
        e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.trim().slice(0, 40)),
    unrendered: document.querySelectorAll('mjx-merror').length,
})"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_):
        pass


def serve(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def confine(context, root, mathjax):
    """Keep the browser on this machine; MathJax comes from a folder if there is one."""

    def answer(route):
        url = route.request.url
        if url.startswith((root, "data:", "blob:")):
            route.continue_()
        elif mathjax and "/mathjax@" in url:
            route.fulfill(path=mathjax / "mathjax" / url.split("/mathjax@", 1)[1].split("/", 1)[1])
        elif mathjax and "/@mathjax/" in url:
            name, path = url.split("/@mathjax/", 1)[1].split("/", 1)
            route.fulfill(path=mathjax / "@mathjax" / name.split("@")[0] / path)
        else:
            route.abort()

    context.route("**/*", answer)


def visit(context, root, page, picture):
    """Return what is wrong with a page, where it links to, and its anchors."""
    tab = context.new_page()
    complaints = []
    tab.on("pageerror", lambda error: complaints.append(f"raises {error}"))
    tab.goto(root + page, wait_until="load")
    tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")  # loads lazy pictures
    tab.wait_for_load_state("networkidle")
    tab.evaluate("window.scrollTo(0, 0)")
    if picture:
        picture.parent.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=picture, full_page=True)
    facts = tab.evaluate(FACTS)
    width = tab.viewport_size["width"]
    tab.close()
    if facts["wide"] > 0:
        complaints.append(f"scrolls sideways by {facts['wide']}: {facts['culprits']}")
    if facts["cut"] and width == WIDTHS["desk"][0]:
        complaints.append(f"has code that is wider than its column: {facts['cut']}")
    if facts["unrendered"]:
        complaints.append(f"has {facts['unrendered']} formulas that are not TeX")
    complaints += [f"has a broken picture: {source}" for source in facts["broken"]]
    complaints += [f"has no text for {source}" for source in facts["unnamed"]]
    return complaints, facts["links"], set(facts["anchors"])


def dead_links(root, folder, links, anchors):
    """Return links within the pages that lead nowhere."""
    for page, targets in links.items():
        for target in dict.fromkeys(targets):
            url, anchor = urldefrag(urljoin(root + page, target))
            if not url.startswith(root):
                continue
            path = unquote(url.removeprefix(root)).split("?")[0] or "index.html"
            if not (folder / path).is_file():
                yield f"{page} links to {path}, which is not there"
            elif anchor and path in anchors and unquote(anchor) not in anchors[path]:
                yield f"{page} links to {path}#{anchor}, which is not there"


def search(tab, root):
    """Return what a search does not find."""
    for words, wanted in SEARCHED.items():
        tab.goto(f"{root}search.html?q={words}")
        tab.wait_for_selector("#search-results li a", timeout=20_000)
        tab.wait_for_function("document.querySelector('#search-results p.search-summary')")
        found = tab.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
        if not any(wanted in target for target in found):
            yield f"a search for {words!r} does not find {wanted}: {found[:5]}"


def copying(tab, root, page):
    """Return what the copy buttons of a page's first blocks of code copy wrongly."""
    tab.goto(root + page)
    for block in tab.locator("div.highlight-python, div.highlight-default").all()[:3]:
        block.locator("button.copybtn").dispatch_event("click")
        tab.wait_for_timeout(50)
        text = tab.evaluate("navigator.clipboard.readText()")
        if not text.strip() or text.startswith((">>>", "...")):
            yield f"{page} copies {text[:60]!r}"


def complaints_of(browser, root, pages, options):
    """Yield all that is wrong, in words."""
    links, anchors = {}, {}
    for device, (width, height) in WIDTHS.items():
        context = browser.new_context(viewport={"width": width, "height": height})
        confine(context, root, options.mathjax)
        for page in tqdm(pages, desc=device, disable=None, leave=False):
            name = page.replace("/", "-").removesuffix(".html") + ".png"
            picture = options.pictures and options.pictures / device / name
            wrong, links[page], anchors[page] = visit(context, root, page, picture)
            yield from (f"{page} ({device}) {complaint}" for complaint in wrong)
        context.close()
    yield from dead_links(root, options.html, links, anchors)
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    confine(context, root, options.mathjax)
    tab = context.new_page()
    yield from search(tab, root)
    for page in pages:
        yield from copying(tab, root, page)
    context.close()


def main():
    """Print all complaints; exit with 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=Path("doc/_build/html"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--mathjax", type=Path, metavar="NODE_MODULES")
    parser.add_argument("--only", default="", help="pages whose path holds this")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("No Chromium: name it by the variable CHROMIUM.")

    every = (str(path.relative_to(options.html)) for path in options.html.rglob("*.html"))
    pages = sorted(p for p in every if options.only in p and not p.startswith("_static"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        root = serve(options.html)
        complaints = list(complaints_of(browser, root, pages, options))
        browser.close()
    print(*complaints, f"{len(pages)} pages, {len(complaints)} complaints", sep="\n")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
