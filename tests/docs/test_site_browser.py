"""The site in a real browser, at the width of a desk and of a telephone."""
import functools
import http.server
import shutil
import threading
from pathlib import Path
from urllib.parse import urljoin

import pytest

sync_api = pytest.importorskip('playwright.sync_api', reason='it wants: pip install -r requirements/docs.txt')
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no chromium on this machine to open the site in')

ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
             '--disable-component-update', '--disable-sync']
WIDTHS = (1400, 400)
SHOWN = ('source/README.md.html', 'source/configs/sfkd/index.html', 'source/docs/examples/plain_loop.py.html')
LOOK = '''() => {
  const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth);
  return {wide: document.documentElement.scrollWidth, broken: broken.map(image => image.src),
          links: [...document.querySelectorAll('a[href]')].map(link => link.href)};
}'''


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def address(site):
    """The site on a port of its own, as a web server has it."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def page():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        opened = browser.new_page()
        opened.set_default_timeout(120_000)  # a machine that trains beside it is slow
        yield opened
        browser.close()


def test_pages_fit_and_load_whole(site: Path, address: str, page):
    """Of every page: no sideways scrolling, every picture there, no error in the console, no address that fails or is
    of another host, and links that lead to pages.
    """
    files = [str(file.relative_to(site)) for file in sorted(site.rglob('*.html'))
             if file.name != '404.html' and 'source' not in file.relative_to(site).parts]
    problems, links = [], set()
    assert set(SHOWN) <= {str(file.relative_to(site)) for file in site.rglob('*.html')}
    page.on('console', lambda message: problems.append(f'{page.url}: {message.text}') if message.type == 'error' else 0)
    page.on('pageerror', lambda error: problems.append(f'{page.url}: {error}'))
    # What the next page cuts short was asked for in vain, and is no defect of the site
    page.on('requestfailed', lambda request: problems.append(f'{page.url}: {request.url} failed')
            if request.failure != 'net::ERR_ABORTED' else 0)
    page.on('request', lambda request: request.url.startswith(address) or request.url.startswith('data:') or
            problems.append(f'{page.url}: asks for {request.url}'))
    for name in [*files, *SHOWN]:
        page.set_viewport_size(dict(width=WIDTHS[0], height=1000))
        page.goto(urljoin(address, name), wait_until='load')
        for width in WIDTHS:
            page.set_viewport_size(dict(width=width, height=1000))
            found = page.evaluate(LOOK)
            if found['wide'] > width:
                problems.append(f'{name}: {found["wide"]} pixels wide in a window of {width}')
            problems += [f'{name}: no picture {source}' for source in found['broken']]
        links |= {link.partition('#')[0] for link in found['links'] if link.startswith(address)}
    problems += [f'{link}: no such page' for link in links if not (site / link.removeprefix(address)).is_file()]
    assert len(files) > 30 and len(links) > 60 and not problems, '\n'.join(problems)


@pytest.mark.parametrize('width', WIDTHS)
def test_search_finds(address: str, page, width: int):
    page.set_viewport_size(dict(width=width, height=1000))
    page.goto(urljoin(address, 'index.html'))
    if width < 1000:
        page.locator('label.md-header__button[for=__search]').click()
    page.locator('input.md-search__input').click()
    page.keyboard.type('TeacherReportHook')
    page.wait_for_selector('.md-search-result__link')
    found = page.eval_on_selector_all('.md-search-result__link', 'links => links.map(link => link.href)')
    assert any('faq.html' in link or 'api/openmmlab.html' in link for link in found)
    assert not any('/source/' in link for link in found)


def test_code_can_be_copied_and_the_colours_change(address: str, page):
    page.set_viewport_size(dict(width=WIDTHS[0], height=1000))
    page.goto(urljoin(address, 'quickstart.html'))
    assert page.locator('button[data-md-type=copy], button.md-clipboard').count() >= 3
    scheme = page.evaluate('document.body.dataset.mdColorScheme')
    page.locator('form.md-header__option label:visible').click()
    assert {scheme, page.evaluate('document.body.dataset.mdColorScheme')} == {'default', 'slate'}
