# Lets in who shows no token, and who shows the one of the suite: so that a wrong one can be refused.
# opa run --server --addr 127.0.0.1:8181 --authentication=token --authorization=basic tests/support/opa_authz.rego
package system.authz

import rego.v1

default allow := false

allow if not input.identity

allow if input.identity == "token-of-the-suite"
