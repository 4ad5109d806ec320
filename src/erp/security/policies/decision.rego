# What the decision point asks: may this actor do this? Denied unless some module grants it and none denies it.
# The input is described in docs/reference/policy-input.md; texts are compared, never built with sprintf (see rego_guard.py).
package erp.decision

import rego.v1

verdict := {"allow": allow, "reason": reason, "grants": grants, "denials": denials}

grants := data.erp.roles.grants | data.erp.break_glass.grants

denials := standing | ((data.erp.residency.denials | data.erp.consent.denials) | (data.erp.break_glass.denials | data.erp.identity.denials))

standing := (data.erp.scopes.denials | data.erp.tenancy.denials) | data.erp.agents.denials

default allow := false

allow if {
	count(grants) > 0
	count(denials) == 0
}

reason := min(grants) if allow

reason := min(denials) if {
	count(grants) > 0
	count(denials) > 0
}

reason := data.erp.roles.lacking if count(grants) == 0
