// Reads one request to its end over restarts of the scheduler: the recipe of docs/clients.md.

import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";

const PAUSE_MS = 200; // before another call, where the scheduler does not say how long
const GIVE_UP_MS = 60_000; // that no call was answered for

// What is needed of google/rpc/status.proto and google/rpc/error_details.proto.
const { root } = protobuf.parse(
  `
  syntax = "proto3";
  message Status { repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; }
  message RetryInfo { Duration retry_delay = 1; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
`,
  { keepCase: true },
);

// Yields the events of a request, each token and each piece of text once, over as many calls as it takes.
// Throws how the request ended, or that no scheduler came back in time.  `longs` must not be Number: epochs are large.
export async function* readOn(client, request, opened = () => {}) {
  const mine = { ...request };
  if (!mine.requestId) Object.assign(mine, { requestId: randomUUID(), fresh: true });
  let characters = 0; // Unicode code points, as textOffset counts
  let unansweredSince = 0;
  for (;;) {
    const stream = client.Generate(mine);
    opened(stream);
    try {
      for await (const event of stream) {
        unansweredSince = 0;
        if (event.accepted) mine.receipt = event.accepted.receipt;
        if (event.tokens) {
          const { tokens } = event;
          mine.afterToken = tokens.firstIndex + tokens.tokenIds.length;
          mine.afterAttempt = tokens.attempt;
          const text = [...tokens.text].slice(characters - tokens.textOffset); // text may come again
          Object.assign(tokens, { text: text.join(""), textOffset: characters });
          characters += text.length;
        }
        yield event;
      }
      return;
    } catch (error) {
      const { reason, pauseMs } = detailsOf(error);
      const passes = reason === "RECOVERING" || (isBreak(error) && !reason);
      unansweredSince ||= Date.now();
      if (!passes || Date.now() - unansweredSince > GIVE_UP_MS) throw error;
      await pause(pauseMs);
    }
    mine.fresh = false; // a scheduler may know it now
  }
}

// Returns whether the connection broke, for an error without a reason.  gRPC drops calls as a server stops: CANCELLED.
function isBreak({ code, details }) {
  return code === grpc.status.UNAVAILABLE || (code === grpc.status.CANCELLED && details !== "Cancelled on client");
}

// Returns the reason that a scheduler gave, empty if the connection broke, and the milliseconds to wait.
function detailsOf(error) {
  const found = { reason: "", pauseMs: PAUSE_MS };
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  for (const { type_url, value } of packed ? decoded("Status", packed).details : []) {
    const name = type_url.split("/").pop();
    if (name === "google.rpc.ErrorInfo") found.reason = decoded("ErrorInfo", value).reason;
    if (name === "google.rpc.RetryInfo") {
      const { seconds, nanos } = decoded("RetryInfo", value).retry_delay;
      found.pauseMs = Number(seconds) * 1_000 + nanos / 1_000_000;
    }
  }
  return found;
}

function decoded(name, bytes) {
  const type = root.lookupType(name);
  return type.toObject(type.decode(bytes), { arrays: true, defaults: true, longs: Number });
}
