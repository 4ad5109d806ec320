"""A relying party and resource server of OpenID Connect and OAuth 2.0 issuers.

Issuer(settings, http, tenant)   one issuer as one tenant trusts it
  .verify(token)                 who holds a signed access token (RFC 9068), or ``TokenRefusedError``
  .introspect(token)             the same of an opaque one (RFC 7662)
  .exchange, .revoke             RFC 8693, RFC 7009
  .sign_in                       authorization code with PKCE (``sign_in``)

Shared by the provider ``auth/oidc`` and the gateway's own check of credentials.
"""
