// An OpenID Provider (npm oidc-provider, MIT) for tests: clients and accounts are named TENANT.ROLE, as acme.developer.
// Usage: node oidc.mjs PORT SECRET, from a folder with node_modules. All clients have the one secret.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { generateKeyPairSync } from 'node:crypto';

const [port, secret] = process.argv.slice(2);
const required = createRequire(`${process.cwd()}/`);
const load = (name) => import(pathToFileURL(required.resolve(name)));
const { default: Provider, errors } = await load('oidc-provider');
const { SignJWT, importJWK, jwtVerify } = await load('jose');

const issuer = `http://127.0.0.1:${port}`;
const GATEWAY = 'https://erp.example';
const OPAQUE = 'https://opaque.erp.example';
const SCOPES = ['providers:*:*', 'services:*:*', 'providers:cache/*:read'];
const LEAN = 'lean'; // the ID token names the person and no more, as with issuers that keep the rest for the userinfo
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = { ...privateKey.export({ format: 'jwk' }), kid: 'first', alg: 'RS256', use: 'sig' };
const key = await importJWK(jwk, 'RS256');
const verificationKey = await importJWK(publicKey.export({ format: 'jwk' }), 'RS256');

const machine = (name) => ({
  client_id: name, client_secret: secret, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
});
const factsOf = (name) => ({ tenant: name.split('.')[0], roles: [name.split('.')[1]] });

const provider = new Provider(issuer, {
  jwks: { keys: [jwk] },
  cookies: { keys: [secret] },
  clients: [
    {
      client_id: 'gateway',
      client_secret: secret,
      grant_types: ['authorization_code', 'refresh_token', EXCHANGE],
      redirect_uris: ['http://erp.example/auth/callback'],
      post_logout_redirect_uris: ['http://erp.example/'],
    },
    ...['alpha', 'beta', 'acme', 'globex'].flatMap((tenant) => ['admin', 'developer'].map((role) => machine(`${tenant}.${role}`))),
  ],
  conformIdTokenClaims: false,
  claims: { openid: ['sub', 'tenant', 'roles'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: (use, scope) => (use === 'id_token' && scope.split(' ').includes(LEAN) ? { sub: id } : { sub: id, ...factsOf(id) }),
  }),
  extraTokenClaims: (_, token) => factsOf(token.clientId === 'gateway' ? token.accountId : token.clientId),
  scopes: ['openid', 'offline_access', LEAN, ...SCOPES],
  ttl: { AccessToken: 3600, ClientCredentials: 3600, IdToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_, client) => (client.clientId === 'gateway' ? undefined : GATEWAY),
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (![GATEWAY, OPAQUE].includes(resource)) throw new errors.InvalidTarget();
        return {
          scope: SCOPES.join(' '), audience: resource, accessTokenTTL: 3600,
          accessTokenFormat: resource === OPAQUE ? 'opaque' : 'jwt', jwt: { sign: { alg: 'RS256' } },
        };
      },
    },
  },
});

// A gateway under test listens wherever it finds a port.
const isLoopback = (uri, path) => new RegExp(`^http://127\\.0\\.0\\.1:\\d+${path}$`).test(uri);
for (const [method, path] of [['redirectUriAllowed', '/auth/callback'], ['postLogoutRedirectUriAllowed', '/']]) {
  const registered = provider.Client.prototype[method];
  provider.Client.prototype[method] = function allowed(uri) { return isLoopback(uri, path) || registered.call(this, uri); };
}

async function subjectOf(token) {
  try {
    return (await jwtVerify(token, verificationKey, { issuer, audience: GATEWAY, typ: 'at+jwt' })).payload;
  } catch {
    throw new errors.InvalidGrant('the token cannot be exchanged');
  }
}

function narrowed(held, wanted) {
  const has = held ? held.split(' ') : [];
  const asked = wanted ? wanted.split(' ') : has;
  const covered = (scope) => has.includes(scope) || (has.includes('providers:*:*') && scope.startsWith('providers:'));
  const lacking = asked.find((scope) => !covered(scope));
  if (lacking) throw new errors.InvalidScope('the subject does not have it', lacking);
  return asked.join(' ');
}

// Token exchange (RFC 8693) is not part of oidc-provider.
provider.registerGrantType(EXCHANGE, async (ctx) => {
  const { subject_token, actor_token, audience, scope } = ctx.oidc.params;
  if (!subject_token) throw new errors.InvalidRequest('subject_token is missing');
  const { exp, iat, jti, nbf, ...claims } = await subjectOf(subject_token);
  if (actor_token) claims.act = { sub: (await subjectOf(actor_token)).sub };
  claims.scope = narrowed(claims.scope, scope);
  claims.aud = audience || GATEWAY;
  const seconds = Math.min(900, exp - Math.floor(Date.now() / 1000));
  const access_token = await new SignJWT({ ...claims, jti: crypto.randomUUID() })
    .setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid: 'first' }).setIssuedAt().setExpirationTime(`${seconds}s`).sign(key);
  ctx.body = {
    access_token, issued_token_type: 'urn:ietf:params:oauth:token-type:access_token', token_type: 'Bearer',
    expires_in: seconds, scope: claims.scope,
  };
}, ['subject_token', 'subject_token_type', 'requested_token_type', 'actor_token', 'actor_token_type', 'audience', 'scope'], ['audience']);

provider.listen(Number(port), '127.0.0.1');
