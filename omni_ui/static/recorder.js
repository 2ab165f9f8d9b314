// Records sounds: a button that records until it is pressed again. What was heard becomes one more of the given files.
(() => {
  const ENDINGS = { "audio/mp4": "m4a", "audio/ogg": "ogg" }; // else it is WebM
  const ALL = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // not speech alone
  const button = () => document.querySelector("#omni-record");
  let recorder = null;
  let asking = false; // the browser asks its reader for the microphone
  let began = 0;

  async function begin() {
    if (asking) return;
    asking = true;
    try {
      record(await omni.capture({ audio: ALL }));
    } catch (problem) {
      omni.tell(omni.withoutMicrophone(problem));
    } finally {
      asking = false;
    }
  }

  function record(stream) {
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", ({ data }) => pieces.push(data));
    recorder.addEventListener("stop", () => {
      const [type] = recorder.mimeType.split(";");
      for (const track of stream.getTracks()) track.stop();
      omni.attach([new File(pieces, omni.dated("sound", ENDINGS[type] ?? "weba"), { type })]);
      recorder = null;
      show();
    });
    recorder.start();
    began = Date.now();
    show();
  }

  function show() {
    button().classList.toggle("omni-recording", Boolean(recorder));
    const seconds = Math.round((Date.now() - began) / 1000);
    const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    button().querySelector("span").textContent = omni.say(recorder ? "composer.stop_recording" : "composer.record");
    button().querySelector("[role=timer]").textContent = recorder ? time : "";
    if (recorder) setTimeout(show, 1000 - ((Date.now() - began) % 1000));
  }

  addEventListener("click", (event) => {
    if (!button()?.contains(event.target)) return;
    if (recorder?.state === "recording") recorder.stop();
    else if (!recorder) begin();
  });
  omni.once(() => {
    if (!button()) return false;
    button().innerHTML = '<span></span><span role="timer" aria-live="off"></span>';
    show();
    return true;
  });
})();
