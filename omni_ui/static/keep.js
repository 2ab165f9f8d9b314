// What a reader holds is not lost when Gradio takes nodes away: the focus, and thoughts that were unfolded.
(() => {
  const composer = () => document.querySelector("#omni-composer textarea");
  const TO_COMPOSER = "#omni-restart, #omni-examples button, #omni-editing button, [data-omni=edit], [data-omni=undo]";
  let held = null; // what had the focus, if the focus could be seen

  // The composer comes next after these. A finger must not call the keyboard to the screen unless it is to write.
  addEventListener("click", (event) => {
    const pressed = event.target.closest?.(TO_COMPOSER);
    const wanted = pressed?.matches("[data-omni=edit]") || !event.detail || matchMedia("(pointer: fine)").matches;
    if (pressed && wanted) composer()?.focus();
  });

  addEventListener("focusin", ({ target }) => (held = target.matches(":focus-visible") ? target : null));

  function lost() {
    if (!held || document.activeElement !== document.body) return;
    if (held.isConnected && held.checkVisibility({ visibilityProperty: true })) return;
    held = null;
    composer()?.focus();
  }
  addEventListener("focusout", () => setTimeout(lost));

  // What the focus moves to must not lie under the composer.
  omni.once(() => {
    const write = document.querySelector("#omni-write");
    if (!write) return false;
    const page = document.documentElement.style;
    new ResizeObserver(() => (page.scrollPaddingBottom = `${write.offsetHeight + 8}px`)).observe(write);
    return true;
  });

  let unfolded = false;
  function keepUnfolded() {
    const thinking = document.querySelector("#omni-thinking .label-wrap");
    if (thinking) unfolded = thinking.classList.contains("open");
    else if (unfolded) {
      const thoughts = document.querySelector("#omni-history .bot-row:last-child details");
      unfolded = false;
      if (thoughts) thoughts.open = true;
    }
  }

  new MutationObserver(() => {
    lost();
    keepUnfolded();
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
})();
