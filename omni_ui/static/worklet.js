// Plays what it is sent, in order. Runs in the audio thread: no allocation while it plays.
class SpeechPlayer extends AudioWorkletProcessor {
  constructor(options) {
    super();
    const { prebuffer, capacity } = options.processorOptions; // samples
    this.prebuffer = prebuffer;
    this.ring = new Float32Array(capacity);
    this.port.onmessage = (event) => this.take(event.data);
    this.reset();
  }

  reset() {
    this.head = 0;
    this.length = 0;
    this.played = 0;
    this.told = 0;
    this.running = false;
    this.ended = false;
  }

  take(message) {
    if (message === "flush") return this.reset();
    if (message === "end") return void (this.ended = true);
    let tail = (this.head + this.length) % this.ring.length;
    for (const sample of message) {
      this.ring[tail] = sample;
      tail = tail + 1 === this.ring.length ? 0 : tail + 1;
    }
    this.length += message.length;
  }

  tell(what) {
    this.told = this.played;
    this.port.postMessage({ what, played: this.played });
  }

  process(_, outputs) {
    const channel = outputs[0][0];
    if (!this.running && this.length > 0 && (this.ended || this.length >= this.prebuffer)) {
      this.running = true;
      this.tell("playing");
    }
    if (!this.running) {
      if (this.ended && this.length === 0) {
        this.tell("finished");
        this.reset();
      }
      return true;
    }
    const count = Math.min(channel.length, this.length);
    for (let i = 0; i < count; i++) {
      channel[i] = this.ring[this.head];
      this.head = this.head + 1 === this.ring.length ? 0 : this.head + 1;
    }
    this.length -= count;
    this.played += count;
    if (count < channel.length) {
      this.running = false; // wait for a new cushion rather than stutter
      if (!this.ended) this.tell("underrun");
    } else if (this.played - this.told > 2400) {
      this.tell("progress");
    }
    return true;
  }
}

registerProcessor("omni-speech", SpeechPlayer);
