# A time-limited elevation: while it lasts, its holder has a further role, and every decision says so.
package erp.break_glass

import rego.v1

grants contains concat(" ", ["break-glass", input.actor.elevated]) if {
	input.actor.elevated != ""
	data.erp.roles.allowed(input.actor.elevated)
}

# What would outlast the elevation, or hide it, is not done under it.
lasting := {"keys", "policies", "tenants", "audit"}

denials contains "it would outlast the elevation" if {
	input.actor.elevated != ""
	input.target.area == "admin"
	input.target.domain in lasting
	input.target.effect != "read"
}

denials contains "it is not for whoever is elevated" if {
	input.actor.elevated != ""
	input.target.area == "admin"
	input.target.domain == "break_glass"
	input.target.action in {"approve", "set_rules", "request"}
}
