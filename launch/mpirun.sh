#!/bin/sh
# Ranks of this host, or of the hosts in a file:  RANKS=4 launch/mpirun.sh RECIPE [key.path=value ...]
#                                                 RANKS=16 HOSTS=hosts.txt launch/mpirun.sh RECIPE
exec mpirun -n "${RANKS:-1}" ${HOSTS:+--hostfile "$HOSTS"} --bind-to none build/bin/vitrail train "$@" --resume auto
