# What belongs to the platform, and what belongs to another tenant.
package erp.tenancy

import rego.v1

of_the_platform := {["tenants", "create"], ["tenants", "delete"], ["catalog", "reload"], ["audit", "erase"]}

denials contains "only the platform's administrators may do this" if {
	input.target.area == "admin"
	[input.target.domain, input.target.action] in of_the_platform
	input.actor.tenant != "platform"
}

denials contains "it belongs to another tenant" if {
	input.target.tenant != input.actor.tenant
	input.actor.tenant != "platform"
}
