// What Gradio says in its own toasts, said where all other errors are said: one line in the conversation, in the
// reader's language, Gradio's own words folded away.
(() => {
  const LOST = /connection|network|fetch/i;

  function read(toast) {
    const detail = toast.querySelector(".toast-message-text, .toast-text")?.textContent.trim() || toast.textContent.trim();
    toast.closest(".toast-wrap").style.display = "none";
    if (!toast.classList.contains("error")) return;
    omni.tell(omni.say(LOST.test(detail) ? "page.connection_lost" : "page.failed"), detail);
  }

  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) {
        if (node.nodeType !== Node.ELEMENT_NODE) continue;
        const toasts = node.matches(".toast-body") ? [node] : node.querySelectorAll(".toast-body");
        for (const toast of toasts) read(toast);
      }
    }
  }).observe(document, { childList: true, subtree: true });
})();
