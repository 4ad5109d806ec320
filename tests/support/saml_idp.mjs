// An identity provider of SAML made with samlify: `node saml_idp.mjs KEY CERT`, one JSON job per line, one JSON answer each.
// A job: {request: URL of the redirect, spMetadata, facts: overrides, encryption}.
import {readFileSync} from 'node:fs';
import {createInterface} from 'node:readline';
import {createRequire} from 'node:module';
const require = createRequire(process.env.NODE_FOLDER + '/');
const samlify = require('samlify');
samlify.setSchemaValidator({validate: () => Promise.resolve('skipped')});
const [key, cert] = process.argv.slice(2).map((path) => readFileSync(path, 'utf8'));
const entity = 'https://idp.example.com/metadata';
const template = {
  context: '<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="{ID}" Version="2.0" IssueInstant="{IssueInstant}" Destination="{Destination}" InResponseTo="{InResponseTo}"><saml:Issuer>{Issuer}</saml:Issuer><samlp:Status><samlp:StatusCode Value="{StatusCode}"/></samlp:Status><saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="{AssertionID}" Version="2.0" IssueInstant="{IssueInstant}"><saml:Issuer>{Issuer}</saml:Issuer><saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified">{NameID}</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData NotOnOrAfter="{NotOnOrAfter}" Recipient="{Recipient}" InResponseTo="{InResponseTo}"/></saml:SubjectConfirmation></saml:Subject><saml:Conditions NotBefore="{NotBefore}" NotOnOrAfter="{NotOnOrAfter}"><saml:AudienceRestriction><saml:Audience>{Audience}</saml:Audience></saml:AudienceRestriction></saml:Conditions><saml:AuthnStatement AuthnInstant="{IssueInstant}" SessionIndex="{SessionIndex}"><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement><saml:Attribute Name="groups" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic"><saml:AttributeValue>{Group}</saml:AttributeValue></saml:Attribute></saml:AttributeStatement></saml:Assertion></samlp:Response>',
};
// encryption: {dataEncryptionAlgorithm, keyEncryptionAlgorithm} of an encrypted assertion.
const provider = (encryption) => samlify.IdentityProvider({
  entityID: entity, privateKey: key, signingCert: cert, isAssertionEncrypted: Boolean(encryption), ...encryption, wantAuthnRequestsSigned: false,
  requestSignatureAlgorithm: 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
  singleSignOnService: [{Binding: 'urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect', Location: 'https://idp.example.com/sso'}],
  singleLogoutService: [{Binding: 'urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect', Location: 'https://idp.example.com/slo'}],
  wantLogoutResponseSigned: true,
  loginResponseTemplate: template,
});
async function answer(job) {
  const idp = provider(job.encryption);
  const sp = samlify.ServiceProvider({metadata: job.spMetadata});
  const query = Object.fromEntries(new URL(job.request).searchParams);
  const parsed = await idp.parseLoginRequest(sp, 'redirect', {query});
  const now = Date.now(), at = (seconds) => new Date(now + seconds * 1000).toISOString();
  const acs = sp.entityMeta.getAssertionConsumerService('post');
  const values = {
    ID: '_r' + now + Math.random().toString(16).slice(2), AssertionID: '_a' + now + Math.random().toString(16).slice(2),
    Destination: acs, Recipient: acs, Audience: sp.entityMeta.getEntityID(), Issuer: entity, IssueInstant: at(0),
    NotBefore: at(-60), NotOnOrAfter: at(300), StatusCode: 'urn:oasis:names:tc:SAML:2.0:status:Success',
    InResponseTo: parsed.extract.request.id, NameID: 'ada', SessionIndex: 's1', Group: 'buyers', ...job.facts,
  };
  const made = await idp.createLoginResponse(sp, {extract: parsed.extract}, 'post', {}, (text) => ({
    id: values.ID, context: text.replace(/\{(\w+)\}/g, (_, name) => values[name]),
  }));
  return {response: made.context, inResponseTo: values.InResponseTo};
}
// A job to end sessions: {logout: {nameId, sessionIndex, relayState, facts}, spMetadata} -> {url}; unsigned: without a signature.
function logout(job) {
  const idp = provider(), {nameId, sessionIndex, relayState, unsigned, facts} = job.logout;
  const sp = samlify.ServiceProvider({metadata: job.spMetadata, wantLogoutRequestSigned: !unsigned});
  const template = '<samlp:LogoutRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="{ID}" Version="2.0" IssueInstant="{IssueInstant}" Destination="{Destination}"><saml:Issuer>{Issuer}</saml:Issuer><saml:NameID>{NameID}</saml:NameID>'
    + (sessionIndex ? '<samlp:SessionIndex>{SessionIndex}</samlp:SessionIndex>' : '') + '</samlp:LogoutRequest>';
  const made = idp.createLogoutRequest(sp, 'redirect', {logoutNameID: nameId, sessionIndex}, {
    relayState, customTagReplacement: (_, values) => ({
      id: values.ID, context: template.replace(/\{(\w+)\}/g, (_, name) => ({...values, ...facts})[name]),
    }),
  });
  return {url: made.context};
}
// A job about the answer to it: {answered: URL of the redirect, spMetadata} -> {inResponseTo, status}.
async function answered(job) {
  const url = new URL(job.answered), query = Object.fromEntries(url.searchParams);
  const octetString = url.search.slice(1).split('&').filter((part) => !part.startsWith('Signature=')).join('&');
  const found = await provider().parseLogoutResponse(samlify.ServiceProvider({metadata: job.spMetadata}), 'redirect', {query, octetString});
  return {inResponseTo: found.extract.response.inResponseTo, relayState: query.RelayState, destination: found.extract.response.destination};
}
for await (const line of createInterface({input: process.stdin})) {
  try {
    const job = JSON.parse(line);
    console.log(JSON.stringify(await (job.logout ? logout(job) : job.answered ? answered(job) : answer(job))));
  } catch (error) {
    console.log(JSON.stringify({error: String(error && error.stack || error)}));
  }
}
