# Data stays where its tenant is: a call goes to no connection, and is served in no place, of another region.
# Regions are names; eu covers eu-central. A region that nobody has stated restricts nothing.
package erp.residency

import rego.v1

denials contains "the connection is in another region than the tenant's data may be" if {
	input.tenant.region != ""
	input.target.region != ""
	not within(input.target.region, input.tenant.region)
}

denials contains "the layer that serves the call is in another region than the tenant's data may be" if {
	input.tenant.region != ""
	input.call.region != ""
	not within(input.call.region, input.tenant.region)
}

within(place, region) if place == region

within(place, region) if startswith(place, concat("", [region, "-"]))
