// A client of /ws with the library that most of Node uses.
const { WebSocket } = require('ws');

const [, , url] = process.argv;
const socket = new WebSocket(url);
socket.on('message', (text) => console.log(text.toString()));
socket.on('close', (code) => console.log(JSON.stringify({ event: 'closed', data: { code } })));
socket.on('error', (error) => console.log(JSON.stringify({ event: 'failed', data: { message: error.message } })));
socket.on('open', () => {
  require('readline').createInterface({ input: process.stdin }).on('line', (line) => socket.send(line))
    .on('close', () => process.exit(0));
});
