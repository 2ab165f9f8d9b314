// A window with the camera's live picture: a photo or a film with sound goes into the composer like any other file.
// `FILE_LIMIT` ({bytes, text}) is put in front by the server.
(() => {
  const PICTURE = { width: { ideal: 1920 }, height: { ideal: 1080 } };
  const SECONDS = 600; // of the longest film
  const QUALITY = 0.92; // of the photo as JPEG
  const FORMATS = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"]; // the first that the browser can write
  const REFUSED = {
    NotAllowedError: "camera.refused",
    NotFoundError: "camera.none",
    OverconstrainedError: "camera.none",
    NotReadableError: "camera.busy",
    AbortError: "camera.busy",
    SecurityError: "camera.insecure",
  };

  class Camera {
    picture = null; // the stream of the camera
    recorder = null;
    #cameras = [];
    #opening = 0; // counts the cameras asked for, so that one that comes late is closed again

    constructor() {
      this.dialog = document.createElement("dialog");
      this.dialog.id = "omni-camera";
      this.dialog.setAttribute("aria-labelledby", "omni-camera-title");
      this.dialog.innerHTML = `
        <header><h2 id="omni-camera-title"></h2><span role="timer"></span></header>
        <video autoplay playsinline></video>
        <p role="status"></p>
        <p role="alert" class="omni-error" hidden></p>
        <div>
          <button type="button" autofocus></button><button type="button"></button><button type="button"></button>
          <button type="button"></button>
        </div>`;
      const [word, problem] = this.dialog.querySelectorAll("p");
      [this.photo, this.film, this.other, this.leave] = this.dialog.querySelectorAll("button");
      Object.assign(this, { word, problem, view: this.dialog.querySelector("video") });
      this.timer = this.dialog.querySelector("[role=timer]");
      this.view.muted = true;
      this.view.ariaLabel = omni.say("camera.picture");
      this.dialog.querySelector("h2").textContent = omni.say("camera.title");
      this.photo.textContent = omni.say("camera.photo");
      this.other.textContent = omni.say("camera.switch");
      this.leave.textContent = omni.say("camera.close");
      this.photo.addEventListener("click", () => this.#take());
      this.film.addEventListener("click", () => (this.recorder ? this.recorder.stop() : this.#record()));
      this.other.addEventListener("click", () => this.#switch());
      this.leave.addEventListener("click", () => this.dialog.close());
      this.dialog.addEventListener("close", () => this.#shut());
    }

    open() {
      document.querySelector("#omni-write").append(this.dialog);
      this.dialog.showModal();
      this.#look({ facingMode: { ideal: "environment" } });
    }

    // Shows another camera's picture, or says why there is none.
    async #look(which) {
      this.#release();
      this.#say(omni.say("camera.opening"));
      const mine = ++this.#opening;
      try {
        const picture = await omni.capture({ video: { ...PICTURE, ...which } });
        if (mine !== this.#opening) return stop(picture);
        this.picture = this.view.srcObject = picture;
        picture.getVideoTracks()[0].addEventListener("ended", () => this.#fail("camera.failed"));
        await this.view.play();
        const devices = await navigator.mediaDevices.enumerateDevices();
        this.#cameras = devices.filter(({ kind }) => kind === "videoinput").map(({ deviceId }) => deviceId);
        if (mine === this.#opening) this.#say("");
      } catch (problem) {
        if (mine === this.#opening) this.#fail(REFUSED[problem.name] ?? "camera.failed");
      }
    }

    #switch() {
      if (this.other.ariaDisabled === "true") return;
      const now = this.picture.getVideoTracks()[0].getSettings().deviceId;
      const next = this.#cameras[(this.#cameras.indexOf(now) + 1) % this.#cameras.length];
      this.#look({ deviceId: { exact: next } });
    }

    #take() {
      if (this.photo.ariaDisabled === "true") return;
      const { videoWidth: width, videoHeight: height } = this.view;
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      canvas.getContext("2d").drawImage(this.view, 0, 0);
      canvas.toBlob((picture) => this.#give([picture], "photo", "jpg", "image/jpeg"), "image/jpeg", QUALITY);
    }

    async #record() {
      if (this.film.ariaDisabled === "true") return;
      const mine = this.#opening;
      enable(this.film, false); // while the browser asks its reader
      const sound = await omni.capture({ audio: true }).catch(() => null);
      if (mine !== this.#opening || !this.picture) return stop(sound); // closed meanwhile
      const tracks = [...this.picture.getVideoTracks(), ...(sound?.getAudioTracks() ?? [])];
      const mimeType = FORMATS.find((format) => MediaRecorder.isTypeSupported(format));
      this.recorder = new MediaRecorder(new MediaStream(tracks), { mimeType });
      this.#watch(this.recorder, sound);
      this.recorder.start(1000); // a piece each second, to know how large the film is
      this.#say(omni.say(sound ? "camera.recording" : "camera.no_sound"));
    }

    // Ends the film in time and hands it over when it has ended, by whatever means.
    #watch(recorder, sound) {
      const pieces = [];
      let bytes = 0;
      const begun = performance.now();
      const clock = setInterval(() => this.#tick(begun), 250);
      this.#tick(begun);
      recorder.addEventListener("dataavailable", ({ data }) => {
        pieces.push(data);
        bytes += data.size;
        const full = bytes + 4 * data.size > FILE_LIMIT.bytes || performance.now() - begun > 1000 * SECONDS;
        if (full && recorder.state === "recording") recorder.stop();
      });
      recorder.addEventListener("stop", () => {
        clearInterval(clock);
        stop(sound);
        this.recorder = null;
        const [type] = recorder.mimeType.split(";");
        this.#give(pieces, "film", type.split("/")[1], type);
      });
    }

    #tick(begun) {
      const seconds = Math.floor((performance.now() - begun) / 1000);
      this.timer.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    }

    #give(pieces, kind, ending, type) {
      this.dialog.close();
      omni.attach([new File(pieces, omni.dated(kind, ending), { type })]);
    }

    #fail(key) {
      this.#release();
      this.#say("", omni.say(key));
    }

    // One line about what happens now or what went wrong; the buttons follow.
    #say(word, problem = "") {
      this.word.textContent = word;
      this.problem.textContent = problem;
      this.problem.hidden = !problem;
      const { image, video } = omni.missing();
      const idle = this.picture && !this.recorder;
      enable(this.photo, idle, image);
      enable(this.film, this.picture, video);
      enable(this.other, idle);
      this.other.hidden = this.#cameras.length < 2;
      this.film.textContent = omni.say(this.recorder ? "camera.stop" : "camera.film");
      if (!this.recorder) this.timer.textContent = "";
    }

    #release() {
      this.#opening += 1;
      if (this.recorder) this.recorder.stop(); // the film so far is kept
      stop(this.picture);
      this.picture = this.view.srcObject = null;
    }

    #shut() {
      this.#release();
      this.#say("");
    }
  }

  const stop = (stream) => stream?.getTracks().forEach((track) => track.stop());

  // Not `disabled`: the reason could not be reached, and the focus would be lost.
  function enable(button, on, reason = "") {
    button.ariaDisabled = String(!on || Boolean(reason));
    button.title = reason;
  }

  let camera = null;
  omni.openCamera = () => {
    const { image, video } = omni.missing();
    if (image && video) return omni.tell(image);
    camera ??= new Camera();
    camera.open();
  };
})();
