// A dispatch gateway's inner loop on Node's ws: whoever a text frame names gets a push of 300 bytes. See ../README.md.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { WebSocketServer } from 'ws';

const PREFIX = '/ws/driver/';
const push = Buffer.alloc(Number(process.argv[2]), 'x');
const drivers = new Map();
// ws masks and unmasks in native code if bufferutil is there; it is its recommended companion.
const require = createRequire(import.meta.url);

const server = createServer();
const sockets = new WebSocketServer({
    server,
    perMessageDeflate: false,
    clientTracking: false,
    maxPayload: 16 * 1024,
    skipUTF8Validation: true,
    handleProtocols: (protocols) => protocols.values().next().value,
});
const textFrame = { binary: false, compress: false };

sockets.on('connection', (socket, request) => {
    const name = request.url.slice(PREFIX.length);
    drivers.set(name, socket);
    socket.on('message', (data) => drivers.get(data.latin1Slice())?.send(push, textFrame));
    socket.on('close', () => {
        if (drivers.get(name) === socket) drivers.delete(name);
    });
    socket.on('error', () => {});
});

server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
    console.log(`127.0.0.1:${server.address().port}`);
    console.log(
        `node ${process.version}, ws ${require('ws/package.json').version}, bufferutil ${require('bufferutil/package.json').version}`,
    );
});
