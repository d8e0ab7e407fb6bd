# The example gateway. In a checkout: npm pack && docker build -t lazygraph-gateway:0.1.0 -f deploy/gateway.Dockerfile .
FROM node:20-bookworm-slim
WORKDIR /opt/gateway
COPY lazygraph-*.tgz ./
COPY examples/gateway/package.json ./
RUN npm install --ignore-scripts --omit=dev --no-audit --no-fund ./lazygraph-*.tgz && rm lazygraph-*.tgz
COPY examples/gateway/src ./src
USER node
EXPOSE 8000
# Node without npm: process 1 gets the signal, and has to drain.
ENTRYPOINT ["node", "--import", "tsx", "src/main.ts"]
