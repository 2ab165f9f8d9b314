// In which language the page speaks: `?lang=` of its address, else what was chosen before, else the browser's own.
// Runs before Gradio, which asks `navigator.language`, and before the other scripts, which speak by `omni.say`.
// `TEXTS` (language → key → text) is put in front by the server.
window.omni = (() => {
  const PLACE = "omni-language";
  const known = (name) => Object.keys(TEXTS).find((language) => name?.toLowerCase().startsWith(language));

  function remembered() {
    try {
      return localStorage.getItem(PLACE);
    } catch {
      return null; // storage is closed to pages inside other sites
    }
  }

  const address = new URL(location.href);
  const chosen = known(address.searchParams.get("lang")) ?? known(remembered());
  const language = chosen ?? known(navigator.language) ?? "en";
  if (chosen) {
    const name = language === "zh" ? "zh-CN" : language; // as Gradio calls its translations
    Object.defineProperty(navigator, "language", { get: () => name });
    Object.defineProperty(navigator, "languages", { get: () => [name] });
    address.searchParams.set("lang", language); // Gradio hands it to the server with every event
    history.replaceState(history.state, "", address);
  }
  document.documentElement.lang = language;

  return {
    language,
    // A sentence of the catalogue with its {gaps} filled.
    say(key, values = {}) {
      return TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
    },
    // Turns the page to another language. The conversation comes back with it.
    speak(other) {
      try {
        localStorage.setItem(PLACE, other);
      } catch {
        // the address alone tells it then
      }
      const there = new URL(location.href);
      there.searchParams.set("lang", other);
      location.assign(there);
    },
  };
})();
