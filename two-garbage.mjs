import { Dealer } from "zeromq"; import net from "node:net";
const [,, port, kind] = process.argv;
if (kind === "zmq") { for (let p = 0; p < 2; p++) { const d = new Dealer(); d.connect(`tcp://127.0.0.1:${port}`); for (let i = 0; i < 10; i++) await d.send(i % 2 ? Buffer.from("junk") : Buffer.from([0xc1, 1,2])); await new Promise(r => setTimeout(r, 300)); } }
else for (let i = 0; i < 20; i++) { const s = net.connect(port, "127.0.0.1"); s.on("error", () => {}); s.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); await new Promise(r => setTimeout(r, 50)); s.destroy(); }
process.exit(0);
