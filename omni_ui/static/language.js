// In which language the page speaks: `?lang=` of its address, else what was chosen before, else the browser's own.
// Runs before the other scripts, which speak by `omni.say`, and before Gradio builds the page.
// `TEXTS` (language → key → text) is put in front by the server.
window.omni = (() => {
  const PLACE = "omni-language";
  const MARK = "__i18n__"; // before what Gradio looks up
  const known = (name) => Object.keys(TEXTS).find((language) => name?.toLowerCase().startsWith(language));

  function remembered() {
    try {
      return localStorage.getItem(PLACE);
    } catch {
      return null; // storage is closed to pages inside other sites
    }
  }

  // Gradio would look its labels up in the browser's language, or in English where it has another name for it.
  function translate() {
    const { components, i18n_translations: tables } = window.gradio_config;
    for (const { props } of components) {
      for (const [name, value] of Object.entries(props)) {
        if (typeof value !== "string" || !value.startsWith(MARK)) continue;
        props[name] = tables[language][JSON.parse(value.slice(MARK.length)).key];
      }
    }
  }

  const address = new URL(location.href);
  const chosen = known(address.searchParams.get("lang")) ?? known(remembered());
  const language = chosen ?? navigator.languages.map(known).find(Boolean) ?? "en"; // as the server reads the browser
  if (chosen) {
    address.searchParams.set("lang", language); // Gradio hands it to the server with every event
    history.replaceState(history.state, "", address);
  }
  translate();
  document.documentElement.lang = language;

  // Turns the page to another language. The conversation comes back with it.
  function speak(other) {
    try {
      localStorage.setItem(PLACE, other);
    } catch {
      // the address alone tells it then
    }
    const there = new URL(location.href);
    there.searchParams.set("lang", other);
    location.replace(there); // the way back leads to where the reader came from
  }

  addEventListener("click", (event) => {
    const link = event.target.closest?.("#omni-languages a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab or window
    event.preventDefault();
    speak(link.hreflang);
  });

  return {
    language,
    // A sentence of the catalogue with its {gaps} filled.
    say(key, values = {}) {
      return TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
    },
  };
})();
