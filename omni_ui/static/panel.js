// The side panel: opened by the page's own button, closed by its own, by Escape, and unreachable while closed.
(() => {
  const panel = () => document.querySelector("#omni-panel");
  const toggle = () => panel()?.querySelector(".toggle-button");
  const opener = () => document.querySelector("#omni-settings");
  const isOpen = () => panel()?.classList.contains("open") ?? false;

  omni.togglePanel = () => toggle()?.click();

  const tell = () => opener().setAttribute("aria-expanded", String(isOpen()));

  function changed() {
    tell();
    if (isOpen()) enter();
    else opener().focus({ preventScroll: true });
  }

  // The panel slides in: what is not yet there cannot take the focus.
  function enter() {
    if (!isOpen()) return;
    toggle().focus({ preventScroll: true });
    if (document.activeElement !== toggle()) requestAnimationFrame(enter);
  }

  omni.once(() => {
    if (!panel() || !opener() || !toggle()) return false;
    opener().setAttribute("aria-controls", "omni-panel");
    panel().setAttribute("role", "region");
    panel().setAttribute("aria-labelledby", "omni-panel-title");
    tell();
    let wasOpen = isOpen();
    new MutationObserver(() => {
      if (isOpen() === wasOpen) return;
      wasOpen = isOpen();
      changed();
    }).observe(panel(), { attributes: true, attributeFilter: ["class"] });
    return true;
  });

  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isOpen() && !document.querySelector("dialog[open]")) omni.togglePanel();
  });
})();
