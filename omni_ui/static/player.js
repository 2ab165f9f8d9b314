// Speech while it arrives: GET speech/{token} → ring buffer in an AudioWorklet → the loudspeaker.
// `WORKLET` is the source of worklet.js, put in front of this file by the server.
(() => {
  const RATE = 24000; // Hz, what the model speaks
  const PREBUFFER = 0.12; // seconds of cushion before it starts
  const AHEAD = 20; // seconds that may wait in the browser; beyond that the server waits
  const PIECE = 12000; // samples handed over at once

  class OmniPlayer {
    state = "idle"; // idle → waiting → playing → idle
    underruns = 0;
    context = null;
    output = null; // the node that sounds; a test may listen here
    #token = "";
    #abort = null;
    #sent = 0;
    #played = 0;
    #room = null;
    #ready = null;

    constructor() {
      // Browsers let a page sound only after a gesture of its user.
      for (const gesture of ["pointerdown", "pointerup", "keydown"]) {
        addEventListener(gesture, () => this.unlock(), { capture: true, passive: true });
      }
    }

    unlock() {
      if (!this.context) this.#open(RATE);
      else if (this.context.state === "suspended") this.context.resume().catch(() => {});
    }

    // Opens the sound of a token; an empty one only ends what still sounds.
    async listen(token) {
      if (token === this.#token) return;
      this.flush();
      this.#token = token;
      if (!token) return;
      this.#state("waiting");
      this.#abort = new AbortController();
      try {
        await this.#pump(token, this.#abort.signal);
      } catch (error) {
        if (error.name !== "AbortError") this.#state("idle"); // the sound is in the chat anyway
      }
    }

    // Silence at once, without asking the server.
    flush() {
      this.#abort?.abort();
      this.output?.port.postMessage("flush");
      this.#sent = this.#played = 0;
      this.#wake();
      this.#state("idle");
    }

    async #open(rate) {
      const context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
      this.context = context;
      this.#ready = (async () => {
        const source = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
        await context.audioWorklet.addModule(source);
        URL.revokeObjectURL(source);
        this.output = new AudioWorkletNode(context, "omni-speech", {
          outputChannelCount: [1],
          processorOptions: { prebuffer: PREBUFFER * rate, capacity: (AHEAD + 5) * rate },
        });
        this.output.port.onmessage = ({ data }) => this.#told(data);
        this.output.connect(context.destination);
      })();
      this.#ready.catch(() => {});
      return this.#ready;
    }

    async #fetch(token, signal) {
      const root = (window.gradio_config?.root || ".").replace(/\/$/, "");
      const path = new URL(`${root}/speech/${token}`, document.baseURI).pathname;
      for (;;) {
        const response = await fetch(path, { signal, cache: "no-store" });
        if (response.status !== 202) return response; // 202: nothing to hear yet, ask again
      }
    }

    async #pump(token, signal) {
      const response = await this.#fetch(token, signal);
      if (response.status !== 200) return this.#state("idle");
      const rate = Number(response.headers.get("X-Sample-Rate")) || RATE;
      if (!this.context || this.context.sampleRate !== rate) {
        await this.context?.close();
        this.#open(rate);
      }
      await this.#ready;
      const reader = response.body.getReader();
      let rest = new Uint8Array(0);
      for (;;) {
        const { done, value } = await reader.read();
        signal.throwIfAborted();
        if (done) break;
        const bytes = new Uint8Array(rest.length + value.length);
        bytes.set(rest);
        bytes.set(value, rest.length);
        const even = bytes.length & ~1;
        rest = bytes.slice(even);
        await this.#play(new DataView(bytes.buffer, 0, even), rate, signal);
      }
      this.output.port.postMessage("end");
    }

    async #play(view, rate, signal) {
      const total = view.byteLength / 2;
      for (let start = 0; start < total; start += PIECE) {
        while (this.#sent - this.#played > AHEAD * rate) {
          await new Promise((resolve) => (this.#room = resolve));
          signal.throwIfAborted();
        }
        const samples = new Float32Array(Math.min(PIECE, total - start));
        for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * (start + i), true) / 32768;
        this.#sent += samples.length;
        this.output.port.postMessage(samples, [samples.buffer]);
      }
    }

    #told({ what, played }) {
      if (this.state === "idle") return; // flushed meanwhile
      this.#played = played;
      this.#wake();
      if (what === "playing") this.#state("playing");
      if (what === "underrun") this.underruns += 1;
      if (what === "finished") this.#state("idle");
    }

    #wake() {
      this.#room?.();
      this.#room = null;
    }

    #state(state) {
      this.state = state;
      document.documentElement.classList.toggle("omni-speaking", state === "playing");
    }
  }

  window.omniPlayer = new OmniPlayer();
})();
