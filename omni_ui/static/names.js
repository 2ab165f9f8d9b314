// Names that Gradio gives in English only, or not at all: each again, from the catalogue, whenever the page changes.
(() => {
  // selector → attribute → key of the catalogue, a plain value in brackets, or what an element makes of it
  const NAMES = [
    ["#omni-history [role=log]", { "aria-label": "page.conversation" }],
    ["#omni-live [role=log]", { "aria-label": "page.growing", "aria-live": ["off"] }], // heard once, when it is whole
    ["[data-testid=user]", { role: ["group"], "aria-label": "page.question" }],
    ["[data-testid=bot]", { role: ["group"], "aria-label": "page.answer" }],
    [".copy_code_button", { "aria-label": "page.copy_code", title: "page.copy_code" }],
    [".label-wrap", { "aria-expanded": (fold) => String(fold.classList.contains("open")) }],
    ["#omni-panel .toggle-button", { "aria-label": "page.close_settings", title: "page.close_settings" }],
  ];

  function value(element, what) {
    if (typeof what === "function") return what(element);
    return Array.isArray(what) ? what[0] : omni.say(what);
  }

  function name() {
    for (const [selector, attributes] of NAMES) {
      for (const element of document.querySelectorAll(selector)) {
        for (const [attribute, what] of Object.entries(attributes)) {
          const text = value(element, what);
          if (element.getAttribute(attribute) !== text) element.setAttribute(attribute, text);
        }
      }
    }
  }

  let planned = false;
  const observed = { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] };
  new MutationObserver(() => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      name();
    });
  }).observe(document, observed);
})();
