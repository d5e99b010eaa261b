#!/bin/bash
# A Ray cluster on the nodes of one Slurm job, and a sweep on its first node. Before the time is up,
# the sweep saves its trials, and the job goes back into the queue; there it goes on as often as it
# has to. Slurm passes the environment on, so HF_TOKEN and WANDB_API_KEY need not be written here.
# Where --gpus-per-node is not known: --gpus-per-node 0 --set gres=gpu:8.
#SBATCH --job-name={{ name }}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
{% if gpus_per_node %}
#SBATCH --gpus-per-node={{ gpus_per_node }}
{% endif %}
{% if "cpus-per-task" not in settings %}
#SBATCH --cpus-per-task={{ 4 * (gpus_per_node or 1) }}
{% endif %}
#SBATCH --chdir={{ folder | quote }}
#SBATCH --output={{ name }}-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
{% for key, value in settings.items() %}
#SBATCH --{{ key }}{% if value %}={{ value | quote }}{% endif +%}
{% endfor %}

python={{ python | quote }}
ray=${python%/*}/ray
export PYTHONPATH={{ project | quote }}${PYTHONPATH:+:$PYTHONPATH}

# Only who has this token may use the cluster; it is another for every start of the job.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
head=$("$python" -c 'import ray.util; print(ray.util.get_node_ip_address())')
export RAY_ADDRESS=$head:$((20000 + SLURM_JOB_ID % 10000))

# Ray on every node: the first task is the head, which runs on the node of this script.
srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -c '
  if [ "$SLURM_PROCID" = 0 ]; then
    where="--head --port=${RAY_ADDRESS##*:} --include-dashboard=false"
  else
    where="--address=$RAY_ADDRESS"
    until (exec 3<>"/dev/tcp/${RAY_ADDRESS%:*}/${RAY_ADDRESS##*:}") 2>/dev/null; do sleep 1; done
  fi
  exec "$0" start --block --disable-usage-stats $where \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
' "$ray" >"$SLURM_JOB_NAME-$SLURM_JOB_ID-ray.log" 2>&1 &
cluster=$!

for _ in $(seq 60); do # a node that comes later is used too
  kill -0 $cluster 2>/dev/null || break # its log says why it has ended
  nodes=$("$ray" status 2>/dev/null | grep -c '^ 1 node_')
  [ "$nodes" -ge "$SLURM_NNODES" ] && break
  sleep 2
done

"$python" {{ command }} &
sweep=$!
trap 'requeue=yes; kill -TERM $sweep' USR1 TERM
while kill -0 $sweep 2>/dev/null; do wait $sweep; done # which a signal to this script ends
wait $sweep
code=$?
if [ "$requeue" ] && [ "$code" -ge 128 ]; then # 143: ended by it before it had anything to save
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
