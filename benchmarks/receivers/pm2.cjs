// Receives from pm2's bus, or times its start of a process: `PM2 KIND LINES`, `PM2 start PROGRAM`.
const [installed, kind, argument] = process.argv.slice(2);
const pm2 = require(installed);

function receive(lines) {
  let received = 0;
  let rest = "";
  const samples = [];
  pm2.launchBus((error, bus) => {
    if (error) throw error;
    bus.on("log:out", (packet) => {
      const now = process.hrtime.bigint();
      const parts = (rest + packet.data).split("\n");
      rest = parts.pop();
      received += parts.length;
      if (kind === "ticks") for (const part of parts) samples.push(Number(now - BigInt(part)) / 1e6);
      if (received < lines) return;
      const time = BigInt(Date.now()) * 1000000n;
      console.log(kind === "ticks" ? JSON.stringify(samples) : time.toString());
      process.exit(0);
    });
    console.log("ready");
  });
}

function start(program) {
  const begin = process.hrtime.bigint();
  const options = { script: program, name: "started", interpreter: "none", args: ["3600"] };
  pm2.start(options, (error) => {
    if (error) throw error;
    const took = Number(process.hrtime.bigint() - begin) / 1e6;
    pm2.delete("started", () => {
      console.log(took);
      process.exit(0);
    });
  });
}

pm2.connect((error) => {
  if (error) throw error;
  if (kind === "start") start(argument);
  else receive(Number(argument));
});
