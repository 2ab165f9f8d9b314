// Small things that Gradio leaves to the page: a name for the composer, the newest words in sight, and a word
// about files that are too large before they are sent. `FILE_LIMIT` ({bytes, text}) is put in front by the server.
(() => {
  const NEAR = 160; // pixels from the end that count as reading along

  function nameComposer() {
    const label = document.querySelector('#omni-composer [data-testid="block-info"]');
    const box = document.querySelector("#omni-composer textarea");
    if (!label || !box) return false;
    label.id ||= "omni-composer-name";
    box.setAttribute("aria-labelledby", label.id);
    return true;
  }

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

  function tell(sentence) {
    const box = document.querySelector("#omni-refused");
    box.textContent = sentence;
    box.hidden = !sentence;
  }

  // Keeps a selection with a file beyond the limit from Gradio, which would send it first and name no file.
  function refuseLarge(event, files) {
    const large = [...(files ?? [])].find((file) => file.size > FILE_LIMIT.bytes);
    if (!large) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    if (event.type === "change") event.target.value = "";
    tell(omni.say("page.too_large", { name: large.name, limit: FILE_LIMIT.text }));
  }

  const inComposer = (event) => event.target.closest?.("#omni-composer");
  addEventListener("change", (event) => inComposer(event) && refuseLarge(event, event.target.files), true);
  addEventListener("drop", (event) => inComposer(event) && refuseLarge(event, event.dataTransfer.files), true);
  addEventListener("paste", (event) => inComposer(event) && refuseLarge(event, event.clipboardData.files), true);
  for (const begin of ["click", "keydown"]) addEventListener(begin, (event) => inComposer(event) && tell(""), true);

  const waiting = new Set([nameComposer, follow]);
  const watch = new MutationObserver(() => {
    for (const task of waiting) if (task()) waiting.delete(task);
    if (waiting.size === 0) watch.disconnect();
  });
  watch.observe(document, { childList: true, subtree: true });
})();
