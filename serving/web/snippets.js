// The request just made, as text that works when it is pasted. Text only, no page.

const WIDTH = 100;

export function base64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  return btoa(text);
}

const wrap = (text) => text.match(new RegExp(`.{1,${WIDTH}}`, "g"))?.join("\n") ?? "";

// Where a token is in use, it is taken from the environment, so that it is in no text that is passed on.
export function curl(base, model, bytes, token) {
  const who = token ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `base64 -d <<'PICTURE' | curl --data-binary @-${who} -H 'Content-Type: application/octet-stream' '${base}predict?model=${model}'
${wrap(base64(bytes))}
PICTURE
`;
}

export function python(base, model, bytes, token) {
  const who = token ? ', "Authorization": "Bearer " + os.environ["TOKEN"]' : "";
  return `import base64
import json
${token ? "import os\n" : ""}import urllib.request

picture = base64.b64decode("""
${wrap(base64(bytes))}
""")
request = urllib.request.Request("${base}predict?model=${model}", picture, {"Content-Type": "application/octet-stream"${who}})
answer = json.load(urllib.request.urlopen(request))
print(answer["predictions"][0]["digit"], answer["predictions"][0]["confidence"])
`;
}

// gRPC carries the 28x28 pixels that the network saw.
export function grpc(address, model, pixels, token, tls) {
  const who = token ? ', headers={"authorization": "Bearer " + os.environ["TOKEN"]}' : "";
  return `# pip install "tritonclient[grpc]"
import base64
${token ? "import os\n" : ""}
import numpy as np
import tritonclient.grpc

pixels = base64.b64decode("""
${wrap(base64(pixels))}
""")
images = tritonclient.grpc.InferInput("images", [1, 28, 28], "UINT8")
images.set_data_from_numpy(np.frombuffer(pixels, np.uint8).reshape(1, 28, 28))
client = tritonclient.grpc.InferenceServerClient("${address}"${tls ? ", ssl=True" : ""})
probabilities = client.infer("${model}", [images]${who}).as_numpy("probabilities")[0]
print(probabilities.argmax(), probabilities.max())
`;
}
