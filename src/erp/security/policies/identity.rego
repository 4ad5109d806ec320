# Who decides whom a tenant trusts decides who its administrators are: that takes an administrator.
package erp.identity

import rego.v1

denials contains "only administrators may change whom the tenant trusts" if {
	input.target.area == "admin"
	input.target.domain == "connections"
	input.target.effect != "read"
	startswith(input.target.name, "auth/")
	not "admin" in input.actor.roles
	input.actor.elevated != "admin"
}
