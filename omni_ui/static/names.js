// Names that Gradio gives in English only, or not at all: each again, from the catalogue, whenever the page changes.
(() => {
  const wide = (node) => (node.scrollWidth > node.clientWidth ? "0" : null); // what scrolls does so by keyboard, too
  const title = (input) => input.closest(".block").querySelector("[data-testid=block-info]")?.textContent.trim();

  const row = (element) => element.closest("tr").querySelector(".filename").ariaLabel;

  // selector → attribute, or `text` → key of the catalogue, plain value in brackets, or what an element makes of it
  const NAMES = [
    [".user-row", { role: ["article"], "aria-label": "page.question" }],
    [".bot-row", { role: ["article"], "aria-label": "page.answer" }],
    [".message-row [data-testid]", { "aria-label": [null] }], // the row has the name
    [".message-content pre", { tabindex: wide }],
    [".message-content table", { tabindex: wide }],
    ["#omni-history [role=log]", { "aria-label": "page.conversation" }],
    ["#omni-live [role=log]", { "aria-label": "page.growing", "aria-live": ["off"] }], // heard once, when it is whole
    [".copy_code_button", { "aria-label": "page.copy_code", title: "page.copy_code" }],
    [".label-wrap", { "aria-expanded": (fold) => String(fold.classList.contains("open")) }],
    ["#omni-panel-title p", { role: ["heading"], "aria-level": ["2"] }],
    ["#omni-panel .toggle-button", { "aria-label": "page.close_settings", title: "page.close_settings" }],
    ["#omni-panel input[type=range]", { "aria-label": title }],
    ["#omni-panel input[type=number]", { "aria-label": title }],
    ["#omni-files .upload-container:has(.wrap)", { "aria-label": [null] }], // its words are its name
    ["#omni-files .upload-container .wrap", { text: "jobs.drop" }],
    ["#omni-files .or", { text: "jobs.choose" }],
    ["#omni-files .icon-button:last-child", { "aria-label": "jobs.clear", title: "jobs.clear" }],
    ["#omni-files .label-clear-button", { "aria-label": (cross) => omni.say("composer.remove", { name: row(cross) }) }],
    ["#omni-files .download-link", { href: [null], text: (size) => size.textContent.replace(/\s*⇣/, "") }],
  ];

  function value(element, what) {
    if (typeof what === "function") return what(element);
    return Array.isArray(what) ? what[0] : omni.say(what);
  }

  // The nodes are Gradio's: only what stands in them changes.
  function write(element, text) {
    const nodes = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    for (const [n, node] of nodes.entries()) if (node.data !== (n ? "" : text)) node.data = n ? "" : text;
  }

  function name(element, attributes) {
    for (const [attribute, what] of Object.entries(attributes)) {
      const text = value(element, what) ?? null;
      if (attribute === "text") write(element, text);
      else if (text === null) element.removeAttribute(attribute);
      else if (element.getAttribute(attribute) !== text) element.setAttribute(attribute, text);
    }
  }

  function nameAll(root) {
    for (const [selector, attributes] of NAMES) {
      if (root.matches(selector)) name(root, attributes);
      for (const element of root.querySelectorAll(selector)) name(element, attributes);
    }
  }

  // Only what is new: the cost of a word must not grow with the conversation.
  const changed = new Set();
  function plan(root) {
    if (changed.size === 0) requestAnimationFrame(nameChanged);
    changed.add(root);
  }

  function nameChanged() {
    for (const root of changed) nameAll(root);
    changed.clear();
  }

  new MutationObserver((changes) => {
    for (const { type, target, addedNodes } of changes) {
      const row = type === "attributes" ? target : target.closest?.(".message-row"); // code may have become wider
      if (row) plan(row);
      for (const node of addedNodes) if (node.nodeType === Node.ELEMENT_NODE) plan(node);
    }
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["class", "aria-label"] });
  addEventListener("resize", () => plan(document.documentElement));
})();
