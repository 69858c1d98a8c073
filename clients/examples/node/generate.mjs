// Streams one request's text from a scheduler.  No generated code: the .proto files are read as they are.
//
//   npm install && node generate.mjs "Once upon a time" [HOST:PORT]

import { fileURLToPath } from "node:url";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const protos = path.join(path.dirname(fileURLToPath(import.meta.url)), "..", "..", "..", "protos");
const definition = protoLoader.loadSync("sage/controlplane/v1/inference.proto", {
  includeDirs: [protos, path.join(protos, "third_party")],
  longs: Number,
  enums: String,
  oneofs: true,
  defaults: true,
});
const { InferenceService } = grpc.loadPackageDefinition(definition).sage.controlplane.v1;

const [prompt = "Once upon a time", address = "127.0.0.1:50051"] = process.argv.slice(2);
const client = new InferenceService(address, grpc.credentials.createInsecure());
const stream = client.Generate({ spec: { text: prompt, sampling: { maxTokens: 32 }, priority: "PRIORITY_HIGH" } });

process.on("SIGINT", () => stream.cancel());
stream.on("data", ({ event, accepted, scheduled, tokens, finished }) => {
  if (event === "accepted") console.error(`[${accepted.requestId}: ${accepted.promptTokens} prompt tokens]`);
  if (event === "scheduled") console.error(`[on ${scheduled.decision.instanceId}: ${scheduled.decision.reasons[0]}]`);
  if (event === "tokens") process.stdout.write(tokens.text);
  if (event === "finished") console.error(`\n[${finished.finishReason}, ${finished.usage.completionTokens} tokens]`);
});
stream.on("error", (error) => {
  console.error(`error: ${error.details} (${grpc.status[error.code]})`);
  process.exitCode = 1;
});
stream.on("end", () => client.close());
