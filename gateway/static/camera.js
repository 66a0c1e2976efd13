// A photo from the camera of this machine, where there is no app that takes it.

const dialog = document.getElementById("shot");
const video = dialog.querySelector("video");
const take = dialog.querySelector("[value=take]");
const problem = document.getElementById("camera-problem");
let isAsked = false;

/** Say whether to look through the camera here; phones have a better way. */
export const hasViewfinder = () =>
  Boolean(navigator.mediaDevices?.getUserMedia) && !matchMedia("(pointer: coarse)").matches;

video.addEventListener("loadeddata", () => {
  take.disabled = false;
  take.focus();
});

/** Show what the camera sees; return a photo, or nothing if none was taken. */
export async function takePhoto() {
  if (isAsked) return null; // by a second click, while the camera starts
  isAsked = true;
  try {
    return await look();
  } finally {
    isAsked = false;
  }
}

async function look() {
  problem.hidden = true;
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
  } catch {
    problem.hidden = false;
    return null;
  }
  take.disabled = true;
  video.srcObject = stream;
  dialog.returnValue = "";
  dialog.showModal();
  try {
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "take" ? await frame() : null;
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

async function frame() {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const image = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return new File([image], "from the camera.jpg", { type: image.type });
}
