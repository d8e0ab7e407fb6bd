# The controller alone. In a checkout: npm pack && docker build -t lazygraph-serve:0.1.0 -f deploy/serve.Dockerfile .
FROM node:20-bookworm-slim
WORKDIR /opt/lazygraph
COPY lazygraph-*.tgz ./
# Without scripts: all native parts come prebuilt.
RUN npm install --ignore-scripts --omit=dev --no-audit --no-fund ./lazygraph-*.tgz && rm lazygraph-*.tgz
# A new volume mounted there takes its owner from here: root's would keep no learned plans.
RUN mkdir /plans && chown node /plans
USER node
EXPOSE 5757 7480
# Reading is for whoever reaches the port; LAZYGRAPH_HTTP_TOKEN keeps changes for those who have it.
ENTRYPOINT ["node", "node_modules/lazygraph/dist/cli/main.js", "serve"]
CMD ["--endpoint", "tcp://0.0.0.0:5757", "--http", "0.0.0.0:7480", "--http-unsafe", "--log-format", "json"]
