// What several scripts need: a task for when an element is there, a sentence for the eye, a sentence for the ear, a way to
// the microphone.
(() => {
  const waiting = new Set();
  let watch = null;

  // Calls `task` now and at every change of the page until it returns true.
  omni.once = (task) => {
    if (task()) return;
    waiting.add(task);
    watch ??= new MutationObserver(() => {
      for (const one of waiting) if (one()) waiting.delete(one);
      if (waiting.size === 0) watch.disconnect();
    });
    watch.observe(document, { childList: true, subtree: true });
  };

  // Says in the conversation what went wrong in the browser; an empty sentence takes it back.
  omni.tell = (sentence, detail = "") => {
    const box = document.querySelector("#omni-refused");
    if (!box) return;
    box.textContent = sentence;
    box.hidden = !sentence;
    if (!detail) return;
    const more = document.createElement("details");
    const title = document.createElement("summary");
    const code = document.createElement("code");
    title.textContent = omni.say("page.detail");
    code.textContent = detail;
    more.append(title, code);
    box.append(more);
  };

  // For readers who do not see that something has been done.
  omni.announce = (sentence) => {
    let place = document.querySelector("#omni-heard");
    if (!place) {
      place = document.createElement("div");
      place.id = "omni-heard";
      place.setAttribute("role", "status");
      document.body.append(place);
    }
    place.textContent = "";
    setTimeout(() => (place.textContent = sentence), 50); // the same sentence twice is heard twice
  };

  // Like getUserMedia, which pages without https do not have.
  omni.capture = async (wanted) => {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    return navigator.mediaDevices.getUserMedia(wanted);
  };

  const REFUSED = {
    NotAllowedError: "composer.microphone_refused",
    NotFoundError: "composer.microphone_none",
    NotReadableError: "composer.microphone_busy",
  };

  // Why `capture` gave no microphone.
  omni.withoutMicrophone = (problem) => omni.say(REFUSED[problem.name] ?? "composer.microphone_insecure");
})();
