# A time-limited elevation: while it lasts, its holder has a further role, and every decision says so.
package erp.break_glass

import rego.v1

grants contains concat(" ", ["break-glass", input.actor.elevated]) if {
	input.actor.elevated != ""
	data.erp.roles.allowed(input.actor.elevated)
}
