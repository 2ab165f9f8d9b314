// Keeps the newest words in sight while somebody reads along.
(() => {
  const NEAR = 160; // pixels from the end that count as reading along

  function follow() {
    const column = document.querySelector("#omni-talk");
    if (!column) return false;
    const page = document.scrollingElement;
    let height = page.scrollHeight;
    new ResizeObserver(() => {
      const wasNear = height - page.scrollTop - innerHeight < NEAR;
      height = page.scrollHeight;
      if (wasNear) page.scrollTo({ top: height });
    }).observe(column);
    return true;
  }

  const waiting = new Set([follow]);
  const watch = new MutationObserver(() => {
    for (const task of waiting) if (task()) waiting.delete(task);
    if (waiting.size === 0) watch.disconnect();
  });
  watch.observe(document, { childList: true, subtree: true });
})();
