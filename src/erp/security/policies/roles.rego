# What roles are for.
#   admin      everything in its tenant
#   operator   connections, routes, rotations of secrets, operations, health, metrics, dead events and all actions; reads the rest of administration
#   developer  actions of providers and services; no administration
#   agent      as developer, within agents.rego
#   service    the layer's own services: actions, no administration
package erp.roles

import rego.v1

callers := {"admin", "operator", "developer", "agent", "service"}

# Areas of administration that operators change.
operated := {"connections", "routes", "secret_schedules", "operations", "metrics", "health", "outbox", "consents"}

grants contains concat(" ", ["role", role]) if {
	some role in input.actor.roles
	allowed(role)
}

allowed(role) if {
	input.target.area in {"providers", "services"}
	role in callers
}

allowed("admin") if input.target.area == "admin"

allowed("operator") if {
	input.target.area == "admin"
	input.target.effect == "read"
}

allowed("operator") if {
	input.target.area == "admin"
	input.target.domain in operated
}

# Whoever may call may ask for more in an emergency, and end it; the tenant's rules say what is given.
allowed(role) if {
	role in {"operator", "developer"}
	input.target.area == "admin"
	input.target.domain == "break_glass"
	input.target.action in {"request", "end"}
}

held := concat(", ", sort(input.actor.roles)) if count(input.actor.roles) > 0

held := "no role" if count(input.actor.roles) == 0

lacking := concat(" ", [held, "may not use", input.target.area]) if input.target.area != "admin"

lacking := concat(" ", [held, "may not administer this"]) if input.target.area == "admin"
