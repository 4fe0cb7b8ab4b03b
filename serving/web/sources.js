// Pictures from elsewhere: file, clipboard, drag, camera.

import { byId, isTextField } from "./dom.js";

// The picture no larger than a sheet of `side` shows it: one of a phone takes 50 MB, and each is kept for an undo.
async function shown(blob, side) {
  const whole = await createImageBitmap(blob).catch(() => null);
  const share = whole && side / Math.max(whole.width, whole.height);
  if (!whole || share >= 1) return whole;
  const [resizeWidth, resizeHeight] = [whole.width, whole.height].map((length) => Math.max(1, Math.round(length * share)));
  const small = await createImageBitmap(whole, { resizeWidth, resizeHeight, resizeQuality: "medium" });
  whole.close();
  return small;
}

// The bytes of a file, which may be changed later, or taken away; null of what cannot be read, such as a folder.
async function copyOf(blob) {
  const bytes = await blob.arrayBuffer().catch(() => null);
  return bytes && new Blob([bytes], { type: blob.type });
}

function release(view) {
  for (const track of view.srcObject?.getTracks() ?? []) track.stop();
  view.srcObject = null;
}

const pictureOf = (files) => [...files].find((file) => file.type.startsWith("image/")) ?? files[0];

// Where a picture on the sheet is from, in words.
export function sourceOf({ name, bitmap }) {
  return bitmap ? `Picture: ${name}` : `Picture: ${name} (this browser cannot show it; the service may still read it)`;
}

export class Sources {
  // `say(text)` shows a line under the sheet.
  constructor(pad, say) {
    this.pad = pad;
    this.say = say;
    this.turn = 0;
    // Who draws, clears or takes back meanwhile no longer waits for it.
    pad.addEventListener("change", () => this.turn++);
    this.#connectFile();
    this.#connectPaste();
    this.#connectDrop();
    this.#connectCamera();
  }

  // Of two pictures, the one that came last is placed last, however long the browser takes to read either.
  async place(blob, name) {
    const turn = ++this.turn;
    const [copy, bitmap] = await Promise.all([copyOf(blob), shown(blob, this.pad.size)]);
    if (turn !== this.turn) return;
    if (copy) this.pad.place(copy, name, bitmap);
    else this.say(`${name} cannot be read; it may be a folder, or no longer there.`);
  }

  #connectFile() {
    const input = byId("file");
    byId("upload").addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      if (input.files.length) await this.place(input.files[0], input.files[0].name);
      input.value = "";
    });
  }

  #connectPaste() {
    document.addEventListener("paste", (event) => {
      if (isTextField(event.target)) return;
      const file = pictureOf(event.clipboardData.files);
      if (file) this.place(file, "from the clipboard");
      else this.say("The clipboard holds no picture.");
    });
    const button = byId("paste");
    button.hidden = !navigator.clipboard?.read;
    button.addEventListener("click", () => this.#pasteByButton());
  }

  async #pasteByButton() {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) return await this.place(await item.getType(type), "from the clipboard");
      }
      this.say("The clipboard holds no picture.");
    } catch {
      this.say("The browser did not let the page read the clipboard; press Ctrl+V or ⌘V instead.");
    }
  }

  #connectDrop() {
    const sheet = byId("sheet");
    const over = (event, on) => {
      event.preventDefault();
      sheet.classList.toggle("dropping", on);
    };
    document.addEventListener("dragover", (event) => over(event, true));
    document.addEventListener("dragleave", (event) => over(event, false));
    document.addEventListener("drop", (event) => {
      over(event, false);
      const file = pictureOf(event.dataTransfer.files);
      if (file) this.place(file, file.name);
      else this.say("What was dropped is no file; save the picture first, or copy and paste it.");
    });
  }

  #connectCamera() {
    const button = byId("camera");
    button.hidden = !navigator.mediaDevices?.getUserMedia;
    const [dialog, view, take] = [byId("camera-dialog"), byId("camera-view"), byId("camera-take")];
    button.addEventListener("click", () => this.#openCamera(dialog, view));
    byId("camera-close").addEventListener("click", () => dialog.close());
    take.addEventListener("click", () => this.#takePicture(dialog, view));
    // A camera takes its time, and before its first picture there is nothing to take.
    view.addEventListener("loadeddata", () => { take.disabled = false; });
    view.addEventListener("emptied", () => { take.disabled = true; });
    dialog.addEventListener("close", () => release(view));
  }

  async #openCamera(dialog, view) {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      const missing = error.name === "NotFoundError";
      this.say(missing ? "No camera was found." : "The browser did not let the page use the camera.");
      return;
    }
    release(view); // the button may have been pressed twice
    view.srcObject = stream;
    dialog.showModal();
    await view.play().catch(() => {}); // closed before it began
  }

  async #takePicture(dialog, view) {
    const canvas = new OffscreenCanvas(view.videoWidth, view.videoHeight);
    canvas.getContext("2d").drawImage(view, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
    dialog.close();
    await this.place(blob, "from the camera");
  }
}
