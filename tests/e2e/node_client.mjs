// Publishes to the given subjects with the Node client, then reads the whole stream back.
// Usage: node node_client.mjs URL STREAM SUBJECT... ; prints one JSON object.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.UNIFIED_NATS_NODE_CLIENT}/package.json`);
const { connect, AckPolicy, StringCodec } = require("nats");

const [url, stream, ...subjects] = process.argv.slice(2);
const codec = StringCodec();
const connection = await connect({ servers: url, timeout: 5000, reconnect: false });
const jetstream = connection.jetstream();
const manager = await connection.jetstreamManager();

const published = [];
for (const subject of subjects) {
  const data = `node ${subject}`;
  const ack = await jetstream.publish(subject, codec.encode(data), { msgID: data });
  published.push({ seq: ack.seq, subject, data });
}

const name = "e2e-node";
await manager.consumers.add(stream, { durable_name: name, ack_policy: AckPolicy.Explicit });
const consumer = await jetstream.consumers.get(stream, name);
const read = [];
let pending = (await consumer.info()).num_pending;
while (pending > 0) {
  const batch = await consumer.fetch({ max_messages: 100, expires: 2000 });
  for await (const message of batch) {
    read.push({ seq: message.seq, subject: message.subject, data: codec.decode(message.data) });
    message.ack();
    pending = message.info.pending;
    if (pending === 0) break;
  }
}
await manager.consumers.delete(stream, name);
await connection.drain();
console.log(JSON.stringify({ published, read }));
