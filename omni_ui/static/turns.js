// The buttons under the messages: copy works here, the others press a hidden button of Gradio, which asks for `turn`.
(() => {
  const SECONDS = 1.5; // that a button shows that it has copied

  async function toClipboard(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const box = document.createElement("textarea"); // pages without https have no clipboard
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }

  async function copy(button) {
    await toClipboard(button.dataset.text);
    button.classList.add("omni-done");
    omni.announce(omni.say("page.copied"));
    setTimeout(() => button.classList.remove("omni-done"), 1000 * SECONDS);
  }

  addEventListener("click", (event) => {
    const button = event.target.closest?.("button[data-omni]");
    if (!button || button.closest(".message-content")) return; // a model may write a button, but not press ours
    if (button.dataset.omni === "copy") return void copy(button);
    omni.turn = Number(button.dataset.index);
    document.querySelector(`#omni-${button.dataset.omni}`).click();
  });
})();
