// Images from outside: files, what is pasted or dropped, the camera. Whatever is wrong with them becomes a sentence.

const LARGEST = 32 << 20; // bytes of a file
const MOST = 64e6; // pixels

// An ImageBitmap of a file. Throws an Error that can be shown as it is.
export async function bitmapOf(file) {
  const name = file.name || "The image";
  if (!file.size) throw new Error(`${name} is empty: choose another image.`);
  if (file.size > LARGEST)
    throw new Error(`${name} has ${Math.round(file.size / 2 ** 20)} MB, and 32 MB are the most: make it smaller first.`);
  const size = sizeOf(new DataView(await file.slice(0, 65536).arrayBuffer()));
  if (size && size[0] * size[1] > MOST)
    throw new Error(`${name} has ${size[0]} × ${size[1]} pixels, and 64 million are the most: make it smaller first.`);
  const type = file.type || "";
  if (type && !type.startsWith("image/")) throw new Error(`${name} is not an image (${type}): choose a PNG, JPEG, GIF or WebP file.`);
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error(
      `${name} cannot be read as an image: it is damaged, or of a kind that this browser does not know. PNG and JPEG always work.`,
    );
  }
}

// [width, height] by the first bytes of a PNG, GIF or JPEG file: before memory is taken for all of its pixels. null for others.
function sizeOf(view) {
  const length = view.byteLength;
  if (length > 24 && view.getUint32(0) === 0x89504e47) return [view.getUint32(16), view.getUint32(20)];
  if (length > 10 && view.getUint32(0) === 0x47494638) return [view.getUint16(6, true), view.getUint16(8, true)];
  if (length < 4 || view.getUint16(0) !== 0xffd8) return null;
  let at = 2;
  while (at + 9 < length && view.getUint8(at) === 0xff) {
    const marker = view.getUint8(at + 1);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return [view.getUint16(at + 7), view.getUint16(at + 5)];
    at += 2 + view.getUint16(at + 2);
  }
  return null;
}

// The first file in what was pasted or dropped; null where there is none.
export const fileIn = data => [...(data?.files ?? [])][0] ?? null;

export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

// Starts the camera in a <video>; returns what stops it. Throws an Error that can be shown.
export async function openCamera(video) {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 640 } }, audio: false });
    video.srcObject = stream;
    await video.play();
    return () => {
      stream.getTracks().forEach(track => track.stop());
      video.srcObject = null;
    };
  } catch (error) {
    const refused = error.name === "NotAllowedError" ? "the browser was not allowed to use it" : "none was found that can be used";
    throw new Error(`The camera stays off: ${refused}. A photograph can be opened instead.`);
  }
}
