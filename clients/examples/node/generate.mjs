// Streams one request's text from a scheduler, and reads on over the scheduler's restarts.
// No generated code: the .proto files are read as they are.
//
//   npm install && node generate.mjs "Once upon a time" [HOST:PORT] [MAX_TOKENS]

import { fileURLToPath } from "node:url";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { readOn } from "./read_on.mjs";

const protos = path.join(path.dirname(fileURLToPath(import.meta.url)), "..", "..", "..", "protos");
const definition = protoLoader.loadSync("sage/controlplane/v1/inference.proto", {
  includeDirs: [protos, path.join(protos, "third_party")],
  longs: String,
  enums: String,
  oneofs: true,
  defaults: true,
});
const { InferenceService } = grpc.loadPackageDefinition(definition).sage.controlplane.v1;

const [prompt = "Once upon a time", address = "127.0.0.1:50051", maxTokens = "32"] = process.argv.slice(2);
const client = new InferenceService(address, grpc.credentials.createInsecure());
const sampling = { maxTokens: Number(maxTokens), temperature: 0 };
const request = { spec: { text: prompt, sampling, priority: "PRIORITY_HIGH", noInstance: "NO_INSTANCE_WAIT" } };

let stream;
process.on("SIGINT", () => stream?.cancel());
try {
  for await (const { event, accepted, scheduled, tokens, finished } of readOn(client, request, (call) => (stream = call))) {
    if (event === "accepted") console.error(`[${accepted.requestId}: ${accepted.promptTokens} prompt tokens]`);
    if (event === "scheduled") console.error(`[on ${scheduled.decision.instanceId}: ${scheduled.decision.reasons[0]}]`);
    if (event === "tokens") process.stdout.write(tokens.text);
    if (event === "finished") console.log();
    if (event === "finished") console.error(`[${finished.finishReason}, ${finished.usage.completionTokens} tokens]`);
  }
} catch (error) {
  if (error.code === undefined) throw error;
  console.error(`error: ${error.details} (${grpc.status[error.code]})`);
  process.exitCode = 1;
} finally {
  client.close();
}
