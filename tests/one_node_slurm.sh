#!/usr/bin/env bash
# one_node_slurm.sh start|stop FOLDER: a Slurm of this machine alone, for the trials; as root, in seconds.
# Needs slurmctld, slurmd, slurm-client and munge. SLURM_CONF=FOLDER/slurm.conf points its programs there.
set -euo pipefail
action=$1 folder=$2
case $action in
start)
    mkdir -p "$folder"/{ctld,d} /run/munge /var/log/munge /var/lib/munge /etc/munge
    host=$(hostname)
    if [ ! -S /run/munge/munge.socket.2 ] || ! munge -n >/dev/null 2>&1; then
        [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
        chmod 400 /etc/munge/munge.key
        chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
        runuser -u munge -- munged --pid-file="/run/munge/munged.pid"
        cp /run/munge/munged.pid "$folder/munged.pid" # ours, so ours to stop
    fi
    cat >"$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/ctld
SlurmdSpoolDir=$folder/d
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1
ReturnToService=2
KillWait=20
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$folder/slurm.conf
    slurmctld -i
    slurmd -N "$host"
    for _ in $(seq 60); do
        [[ $(sinfo -h -o %t 2>/dev/null) == idle ]] && exit 0
        sleep 0.5
    done
    echo "no node became idle; see $folder/slurmctld.log" >&2
    exit 1
    ;;
stop)
    export SLURM_CONF=$folder/slurm.conf
    scancel --user="$(id -un)" 2>/dev/null || true
    for name in slurmd slurmctld munged; do
        [ -s "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
    ;;
esac
