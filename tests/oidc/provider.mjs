// A certified OpenID Connect provider on loopback for tests: device grant, client credentials, refresh with rotation,
// and access tokens that are JSON Web Tokens for the resource AUDIENCE. Prints its address when it listens; ends with
// its standard input. Settings come as JSON in the first argument: {audience, lifetime, key}.
import http from "node:http";
import { generateKeyPairSync } from "node:crypto";
import { Provider } from "oidc-provider";

const { audience, lifetime } = JSON.parse(process.argv[2]);
const SCOPE = "agentflow:conversations agentflow:cancellations agentflow:admin";
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...privateKey.export({ format: "jwk" }), kid: "first", use: "sig", alg: "RS256" };
const counts = { token: 0, refresh: 0 };
const server = http.createServer();

server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    jwks: { keys: [key] },
    clients: [
      {
        client_id: "cli", application_type: "native", token_endpoint_auth_method: "none", redirect_uris: [],
        response_types: [], grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
      },
      ...["post", "basic"].map((how) => ({
        client_id: `machine-${how}`, client_secret: "machine-secret", redirect_uris: [], response_types: [],
        grant_types: ["client_credentials"], token_endpoint_auth_method: `client_secret_${how}`, scope: SCOPE,
      })),
    ],
    scopes: ["openid", "offline_access", "profile", "email", ...SCOPE.split(" ")],
    claims: { openid: ["sub"], profile: ["name", "https://agentflow.ai/tenant"], email: ["email"] },
    async findAccount(_, sub) {
      return {
        accountId: sub,
        claims: () => ({ sub, name: `Person ${sub}`, email: `${sub}@example.com`, "https://agentflow.ai/tenant": "acme" }),
      };
    },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: SCOPE, audience, accessTokenFormat: "jwt", accessTokenTTL: lifetime, jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
    async extraTokenClaims(_, token) {
      return { "https://agentflow.ai/tenant": "acme", ...(token.kind === "ClientCredentials" ? { gty: "client-credentials" } : {}) };
    },
    rotateRefreshToken: true,
    ttl: { DeviceCode: 300, ClientCredentials: lifetime, AccessToken: lifetime },
    cookies: { keys: ["test"] },
  });
  provider.on("grant.success", (ctx) => {
    counts.token += 1;
    if (ctx.oidc.params.grant_type === "refresh_token") counts.refresh += 1;
  });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.path === "/device/auth" && ctx.body?.device_code) ctx.body = { ...ctx.body, interval: 1 };
  });
  const answer = provider.callback();
  server.on("request", (request, response) => {
    if (request.url === "/counts") response.end(JSON.stringify(counts));
    else answer(request, response);
  });
  console.log(issuer);
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
