// Follows the log of an app with stock gRPC for Node: no SDK of ATT, no generated code.
//
//   node follow.js TARGET PROJECT [CURSOR]
//
// TARGET is what gRPC takes, such as unix:/path/att.sock. Every record is printed as one JSON object a line,
// until the app's run has ended. A restart of the server is survived by resuming at the cursor, so no line
// is missed and none comes twice.
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTOS = fileURLToPath(new URL('../../protos', import.meta.url));
const CHANNEL_OPTIONS = { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 2000 };
const FIRST_PAUSE = 50, LONGEST_PAUSE = 2000; // milliseconds between two attempts to resume

// 64-bit integers come as strings: a cursor with a generation does not fit a JavaScript number.
const definition = loadSync(['att/v1/log_service.proto', 'att/v1/runtime_service.proto'], {
  includeDirs: [PROTOS], longs: String, enums: String, oneofs: true, defaults: true,
});
const { LogService, RuntimeService } = grpc.loadPackageDefinition(definition).att.v1;

/** Yields what the log holds from `cursor` on, and what is added, until the run `runId` has ended. */
export async function* follow(client, projectId, cursor, runId) {
  let pause = FIRST_PAUSE;
  for (;;) {
    const call = client.FollowLogs({ projectId, start: { cursor }, untilRunId: runId });
    try {
      for await (const batch of call) {
        yield* batch.records;
        cursor = batch.cursor; // behind what was just handed on
        pause = FIRST_PAUSE;
      }
      return; // only when the run has ended and all of it was sent
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE) throw error;
    } finally {
      call.cancel();
    }
    await sleep(pause * (0.5 + Math.random() / 2));
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
}

/** Names the current or last run of the project's app. */
export async function currentRun(client, projectId) {
  const { runtime } = await promisify(client.GetRuntime.bind(client))({ projectId });
  return runtime.runId;
}

/** Yields a record as objects for JSON: one a line of the app, one a marker, one a gap. */
export function* objects(record) {
  if (record.record === 'chunk') {
    const { firstSequence, lines, stream } = record.chunk;
    let sequence = BigInt(firstSequence);
    for (const line of lines.toString().split('\n').slice(0, -1)) {
      yield { sequence: String(sequence++), stream, line };
    }
  } else if (record.record === 'run') {
    const { sequence, runId, marker } = record.run;
    yield { sequence, run: { runId, marker } };
  } else if (record.record === 'gap') {
    yield { gap: record.gap };
  }
}

async function main([target, projectId, cursor = '0']) {
  const credentials = grpc.credentials.createInsecure();
  const logs = new LogService(target, credentials, CHANNEL_OPTIONS);
  const runtimes = new RuntimeService(target, credentials, CHANNEL_OPTIONS);
  try {
    const runId = await currentRun(runtimes, projectId);
    for await (const record of follow(logs, projectId, cursor, runId)) {
      for (const object of objects(record)) console.log(JSON.stringify(object));
    }
  } catch (error) {
    // Every error of ATT names its reason in this plain trailer too.
    const reason = error.metadata?.get('att-reason')[0] ?? error.code;
    console.error(`${reason}: ${error.details ?? error}`);
    process.exitCode = 1;
  } finally {
    logs.close();
    runtimes.close();
  }
}

if (process.argv.length < 4) {
  console.error('usage: node follow.js TARGET PROJECT [CURSOR]');
  process.exitCode = 2;
} else {
  await main(process.argv.slice(2));
}
