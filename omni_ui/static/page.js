// Small things that Gradio leaves to the page: a name for the composer, and the newest words in sight.
(() => {
  const NEAR = 160; // pixels from the end that count as "reading along"

  function nameComposer(name) {
    const box = document.querySelector("#omni-composer textarea");
    if (box && !box.getAttribute("aria-label")) box.setAttribute("aria-label", name());
  }

  function follow(column) {
    const page = document.scrollingElement;
    let height = page.scrollHeight;
    new ResizeObserver(() => {
      const wasNear = height - page.scrollTop - innerHeight < NEAR;
      height = page.scrollHeight;
      if (wasNear) page.scrollTo({ top: height });
    }).observe(column);
  }

  const watch = new MutationObserver(() => {
    const column = document.querySelector("#omni-talk");
    if (!column) return;
    watch.disconnect();
    follow(column);
  });
  watch.observe(document, { childList: true, subtree: true });
})();
