// What a dashboard does that has always spoken Socket.IO: only the address is an argument, and
// each thing that it hears is printed as a line of JSON.
const { io } = require('socket.io-client');

const [, , url, options] = process.argv;
const socket = io(url, JSON.parse(options || '{}'));
const tell = (event, data) => console.log(JSON.stringify({ event, data }));

socket.on('connect', () => tell('connect', { transport: socket.io.engine.transport.name }));
socket.on('disconnect', (reason) => tell('disconnect', { reason }));
socket.on('connect_error', (error) => tell('connect_error', { message: error.message }));
socket.io.on('open', () => socket.io.engine.on('upgrade', () => tell('upgrade', {})));

socket.emit('subscribe_campaign', { campaignId: 'campaign_123' });
socket.on('campaign_progress', d => tell('campaign_progress', d));
socket.on('campaign_progress_detailed', d => tell('campaign_progress_detailed', d));
socket.on('progress_batch', b => b.events.forEach(e => tell('progress_batch', e)));

socket.on('subscribed', (d, cursor) => tell('subscribed', { ...d, cursor }));
socket.on('error', d => tell('error', d));
// Whatever comes in on standard input is sent: [event, data].
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  socket.emit(...JSON.parse(line));
}).on('close', () => process.exit(0));
