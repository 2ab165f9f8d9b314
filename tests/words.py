"""What stands on a page, and whether it comes from the catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence

from playwright.sync_api import Page

from omni_backend import Language, sentences
from omni_ui import layout
from omni_ui.captioner import page as captioner
from omni_ui.examples import EXAMPLES_FILE, Example, load_examples

BROWSERS: dict[Language, str] = {"en": "en-GB", "zh": "zh-CN"}

# What is read or heard, but for what people, the model and the file system have called: each text of an element and
# each attribute that gives a name.
WORDS = """() => {
  const foreign = ".omni-said, .message-content, .omni-thoughts, figure, code, .omni-ready, option, #omni-languages, " +
    "#omni-composer .omni-name, #omni-composer .thumbnail-wrapper, [role=option], [role=timer], " +
    "#omni-files .filename, .download-link, #omni-caption-language label, .omni-file, .omni-name h2, .omni-player, " +
    ".omni-excerpt :not(.omni-wrong), .omni-excerpt:not(:has(.omni-wrong)), .omni-samples label, .omni-writing, " +
    "time, bdi";
  const names = ["aria-label", "aria-description", "aria-valuetext", "title", "placeholder", "alt"];
  const words = [document.title];
  for (const one of document.body.querySelectorAll("*")) {
    if (one.closest(foreign) || one.matches("script, style, noscript")) continue;
    const seen = one.checkVisibility({ visibilityProperty: true }) && !one.closest("[aria-hidden=true]");
    if (!seen) continue;
    const parts = one.matches("textarea") ? [] : one.childNodes;
    for (const part of parts) if (part.nodeType === Node.TEXT_NODE) words.push(part.data);
    for (const name of names) words.push(one.getAttribute(name) ?? "");
  }
  return words;
}"""


def known(language: Language) -> re.Pattern[str]:
    """What a page may say in `language`."""
    said = [layout.TITLE, captioner.TITLE]
    for example in _examples():
        said += [example.text[language], *(file.name for file in example.files)]
    patterns = [re.escape(text) for text in said]
    for text in sentences(language).values():
        if re.search(r"[^\W\d_]", re.sub(r"\{\w+\}", "", text)):  # else it fits everything
            patterns.append(".+?".join(re.escape(words) for words in re.split(r"\{\w+\}", text)))
    return re.compile("|".join(patterns), re.DOTALL)


def _examples() -> Sequence[Example]:
    return [*load_examples(), *load_examples(EXAMPLES_FILE.with_name("captions.json"))]


def strange(page: Page, language: Language) -> list[str]:
    """What stands on the page and not in the catalogue."""
    lines = {line.strip() for words in page.evaluate(WORDS) for line in words.split(" · ")}
    fits = known(language)
    return sorted(line for line in lines if re.search(r"[^\W\d_]", line) and not fits.fullmatch(line))


def words(page: Page) -> str:
    """All that is on the page, as one text."""
    return "\n".join(page.evaluate(WORDS))
